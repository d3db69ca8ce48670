"""Rotary position embedding of patches by row and column: facts and tables.

Half of a head's angles come from the row, the other half from the column; both halves have the same frequencies. Angles
are float32 in the published code's order of operations; cosine and sine are taken in float64 and rounded.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

PatchRopeStyle = Literal["centred", "grid"]


@dataclass(frozen=True)
class PatchRopeFacts:
    """Everything but the number of patches that decides a table.

    `centred`: 2 pi times the patch's centre, in [-1, 1] from edge to edge (HF `DINOv3ViTRopePositionEmbedding`).
    `grid`: row and column numbers, stretched to the `reference` grid if there is one (Fang et al. 2023, EVA-02).
    `leading` tokens in front of the patches have the angle 0. `head_dim` is a multiple of 4.
    """

    theta: float
    head_dim: int
    style: PatchRopeStyle
    leading: int = 0
    reference: tuple[int, int] | None = None

    @property
    def frequencies(self) -> Array:
        """Inverse frequencies of an axis: float32 [head_dim / 4]."""
        f32 = np.float32
        bands = np.arange(self.head_dim // 4)
        if self.style == "centred":
            exponents = (bands * (4 / self.head_dim)).astype(f32)
        else:
            exponents = bands.astype(f32) / f32(self.head_dim // 4)
        powers = np.array([math.pow(self.theta, float(e)) for e in exponents], dtype=np.float64).astype(f32)
        return f32(1) / powers

    def places(self, axis: int, count: int) -> Array:
        """What the frequencies of an axis are multiplied by, for each of its rows or columns: float32 [count]."""
        f32 = np.float32
        numbers = np.arange(count, dtype=f32)
        if self.style == "centred":
            return f32(2 * math.pi) * (f32(2) * ((numbers + f32(0.5)) / f32(count)) - f32(1))
        return numbers if self.reference is None else numbers / f32(count) * f32(self.reference[axis])

    def angles(self, rows: int, columns: int) -> Array:
        """float32 [leading + rows * columns, head_dim / 2], patches row by row."""
        by_row, by_column = np.meshgrid(self.places(0, rows), self.places(1, columns), indexing="ij")
        both = np.stack([by_row.reshape(-1), by_column.reshape(-1)], axis=1)
        turning = (both[:, :, None] * self.frequencies).reshape(rows * columns, -1)
        return np.concatenate([np.zeros((self.leading, turning.shape[1]), np.float32), turning])

    def cos(self, rows: int, columns: int) -> Array:
        """Cosines of the angles: float32 [1, leading + rows * columns, head_dim / 2]."""
        return np.cos(self.angles(rows, columns).astype(np.float64)).astype(np.float32)[None]

    def sin(self, rows: int, columns: int) -> Array:
        """Sines of the angles, shaped as the cosines."""
        return np.sin(self.angles(rows, columns).astype(np.float64)).astype(np.float32)[None]
