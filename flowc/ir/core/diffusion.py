"""Numbers that become channels or angles: the timestep of a diffusion model, and positions along several axes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from flowc.ir.op import Array, Op
from flowc.ir.rope import MAX_DIM
from flowc.ir.types import TensorType, require


@dataclass(frozen=True)
class Sinusoid(Op, name="sinusoid", operands=("x",), dtypes={"x": ("float32",)}):
    """Cosines, then sines of `x * factor` at falling frequencies: float32 [batch] -> [batch, dim].

    Frequency i of dim / 2 is `max_period ** (-2 i / dim)` (diffusers `get_timestep_embedding`, flip_sin_to_cos).
    """

    dim: int
    factor: float
    max_period: float

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        require(x.rank == 1 and x.dtype == "float32", f"expected float32[batch], not {x}")
        require(self.dim > 0 and self.dim % 2 == 0, f"{self.dim} channels are not cosines and sines")
        require(self.dim <= MAX_DIM, f"a sinusoid has at most {MAX_DIM} channels, not {self.dim}")
        return (x.with_shape(*x.shape, self.dim),)

    def frequencies(self) -> Array:
        """float32 [dim / 2], in the order of operations that torch has in float32."""
        half = self.dim // 2
        exponents = np.float32(-math.log(self.max_period)) * np.arange(half, dtype=np.float32) / np.float32(half)
        return np.array([math.exp(float(e)) for e in exponents], np.float32)

    def reference(self, x: Array) -> tuple[Array, ...]:
        angles = ((x * np.float32(self.factor))[:, None] * self.frequencies()).astype(np.float64)
        return (np.concatenate([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32),)


@dataclass(frozen=True)
class AxialAngles(Op, name="axial_angles", operands=("ids",), dtypes={"ids": ("float32",)}):
    """Cosine and sine of rotary angles along several axes: ids float32 [tokens, axes] -> two of [1, tokens, dim / 2].

    Axis a turns `dims[a]` channels by `ids[:, a] * theta ** (-2 i / dims[a])`, in float64 until the end (diffusers
    `FluxPosEmbed`); dim is the sum of `dims`.
    """

    dims: tuple[int, ...]
    theta: float

    def infer(self, ids: TensorType) -> tuple[TensorType, ...]:
        axes = len(self.dims)
        require(ids.rank == 2 and ids.shape[1] == axes, f"positions along {axes} axes are [tokens, {axes}], not {ids}")
        require(ids.dtype == "float32", f"positions must be float32, not {ids}")
        require(all(d > 0 and d % 2 == 0 for d in self.dims), f"{list(self.dims)} channels do not turn in pairs")
        require(sum(self.dims) <= MAX_DIM, f"a rope turns at most {MAX_DIM} channels, not {sum(self.dims)}")
        require(self.theta >= 1e-30, f"the base {self.theta} gives no finite frequencies")
        table = TensorType("float32", (1, ids.shape[0], sum(self.dims) // 2))
        return (table, table)

    def frequencies(self) -> Array:
        """float64 [axes, dim / 2]: what each position is multiplied by; 0 where another axis has the channel."""
        table = np.zeros((len(self.dims), sum(self.dims) // 2))
        start = 0
        for axis, dim in enumerate(self.dims):
            powers = [math.pow(self.theta, -i / dim) for i in range(0, dim, 2)]
            table[axis, start : start + dim // 2] = powers
            start += dim // 2
        return table

    def reference(self, ids: Array) -> tuple[Array, ...]:
        table = self.frequencies()
        angles = np.zeros((len(ids), table.shape[1]))
        for axis in range(len(self.dims)):
            angles += ids[:, axis, None].astype(np.float64) * table[axis]
        return np.cos(angles).astype(np.float32)[None], np.sin(angles).astype(np.float32)[None]
