"""Operators of vision models: pixels into patches, learned tokens for every image of a batch, angles of patches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from flowc.ir.op import Array, Op
from flowc.ir.patch_rope import PatchRopeFacts
from flowc.ir.traits import Types
from flowc.ir.types import Dim, TensorType, add_dims, known, require


def grid_of(pixels: TensorType, height: int, width: int) -> tuple[int, int] | None:
    """Rows and columns of whole patches in an image; None when its size is known at run time only."""
    rows, columns = pixels.shape[2:]
    if isinstance(rows, str) or isinstance(columns, str):
        return None
    fits = height <= rows and width <= columns
    require(fits, f"an image of {rows} x {columns} is smaller than a patch of {height} x {width}")
    return rows // height, columns // width


@dataclass(frozen=True)
class Patches(Op, name="patches", operands=("pixels",)):
    """Cuts images into patches, row by row: [batch, channels, height, width] -> [batch, patches, channels * h * w].

    A patch's values are in the order channel, row, column, as a convolution's kernel has them, so that a convolution
    whose stride is its kernel is a linear map of patches (Dosovitskiy et al. 2021). As in a convolution, pixels at the
    bottom and on the right that fill no patch are left out.
    """

    height: int
    width: int

    category = "table"

    def trial_sizes(self, types: Types) -> Mapping[str, int]:
        """Two patches and a bit by three and a bit: what fills no patch is left out."""
        pixels = types[0]
        sizes = (2 * self.height + 1, 3 * self.width + 1)
        named = zip(pixels.shape[2:], sizes, strict=True) if pixels is not None else ()
        return {dim: size for dim, size in named if isinstance(dim, str)}

    def infer(self, pixels: TensorType) -> tuple[TensorType, ...]:
        require(pixels.rank == 4, f"pixels must be [batch, channels, height, width], not {pixels}")
        size = self.height * self.width * known(pixels.shape[1], "the number of channels")
        grid = grid_of(pixels, self.height, self.width)
        return (pixels.with_shape(pixels.shape[0], "patches" if grid is None else grid[0] * grid[1], size),)

    def reference(self, pixels: Array) -> tuple[Array, ...]:
        batch, channels, height, width = pixels.shape
        rows, columns = height // self.height, width // self.width
        whole = pixels[:, :, : rows * self.height, : columns * self.width]
        grid = whole.reshape(batch, channels, rows, self.height, columns, self.width)
        patches = grid.transpose(0, 2, 4, 1, 3, 5)
        return (np.ascontiguousarray(patches).reshape(batch, -1, channels * self.height * self.width),)


@dataclass(frozen=True)
class ExpandBatch(Op, name="expand_batch", operands=("x", "like")):
    """The same rows for every entry of a batch: x [1, n, width], like [batch, ...] -> [batch, n, width]."""

    def infer(self, x: TensorType, like: TensorType) -> tuple[TensorType, ...]:
        require(x.rank == 3 and x.shape[0] == 1, f"expected [1, n, width], not {x}")
        return (x.with_shape(like.shape[0], *x.shape[1:]),)

    def reference(self, x: Array, like: Array) -> tuple[Array, ...]:
        return (np.broadcast_to(x, (like.shape[0], *x.shape[1:])).copy(),)


@dataclass(frozen=True)
class PatchAngles(Op, name="patch_angles", operands=("pixels",)):
    """Cosine and sine of the angles of an image's tokens, when its size is known at run time only.

    pixels [batch, channels, rows, columns] -> two of float32 [1, leading + patches, head_dim / 2].
    """

    facts: PatchRopeFacts
    height: int
    width: int

    def infer(self, pixels: TensorType) -> tuple[TensorType, ...]:
        grid = grid_of(pixels, self.height, self.width)
        patches: Dim = "patches" if grid is None else grid[0] * grid[1]
        table = TensorType("float32", (1, add_dims(self.facts.leading, patches), self.facts.head_dim // 2))
        return (table, table)

    def reference(self, pixels: Array) -> tuple[Array, ...]:
        rows, columns = pixels.shape[2] // self.height, pixels.shape[3] // self.width
        return self.facts.cos(rows, columns), self.facts.sin(rows, columns)
