"""Learned positions of a grid of patches for a grid of another size: bicubic interpolation, done when compiling.

Keys (1981): a pixel is a weighted sum of its neighbours along each axis. torch has two such filters, and transformers
uses both: the plain one (a = -0.75, the border repeated), and the one with antialiasing (a = -0.5, the filter widened
where the grid shrinks, weights renormalised at the border).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flowc.ir.types import require
from flowc.ir.weights.expressions import Array, Read, Weight


def bicubic(old: int, new: int, antialias: bool) -> Array:
    """Weights of the old places for each new one: float64 [new, old], rows sum to 1."""
    scale = old / new
    stretch = max(scale, 1.0) if antialias else 1.0
    weights = np.zeros((new, old))
    for place in range(new):
        centre = scale * (place + 0.5) - 0.5
        first, last = int(np.floor(centre - 2 * stretch)), int(np.ceil(centre + 2 * stretch))
        for near in range(first, last + 1):
            if antialias and not 0 <= near < old:
                continue
            weights[place, min(max(near, 0), old - 1)] += _kernel(
                (near - centre) / stretch, -0.5 if antialias else -0.75
            )
    return weights / weights.sum(axis=1, keepdims=True)


def _kernel(distance: float, a: float) -> float:
    """Keys' convolution kernel."""
    x = abs(distance)
    if x < 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2 else 0.0


@dataclass(frozen=True)
class Resampled(Weight):
    """Rows [.., leading + old rows * old columns, width] for a grid of another size; `leading` rows stay."""

    of: Weight
    leading: int
    old: tuple[int, int]
    new: tuple[int, int]
    antialias: bool = False

    def __post_init__(self) -> None:
        rows = self.of.shape[-2]
        wanted = self.leading + self.old[0] * self.old[1]
        require(rows == wanted, f"{self.of.key} has {rows} rows, not {wanted}")

    @property
    def shape(self) -> tuple[int, ...]:
        return (*self.of.shape[:-2], self.leading + self.new[0] * self.new[1], self.of.shape[-1])

    @property
    def dtype(self) -> str:
        return self.of.dtype

    def spell(self) -> str:
        how = "antialias" if self.antialias else "bicubic"
        return f"resample({self.of.key}; {self.leading} + {self.old} -> {self.new}, {how})"

    @property
    def operands(self) -> tuple[Weight, ...]:
        return (self.of,)

    def evaluate(self, read: Read) -> Array:
        values = self.of.evaluate(read)
        flat = values.reshape(-1, values.shape[-1])
        grid = flat[self.leading :].reshape(*self.old, -1).astype(np.float64)
        by_row, by_column = (bicubic(o, n, self.antialias) for o, n in zip(self.old, self.new, strict=True))
        # einsum without BLAS: the same bytes on every machine.
        tall = np.einsum("rs,scw->rcw", by_row, grid, optimize=False)
        whole = np.einsum("cd,rdw->rcw", by_column, tall, optimize=False)
        rows = np.concatenate([flat[: self.leading], whole.reshape(-1, flat.shape[1]).astype(values.dtype)])
        return np.ascontiguousarray(rows.reshape(self.shape))
