"""Operators of vision models: pixels into patches, and learned tokens for every image of a batch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flowc.ir.op import Array, Op
from flowc.ir.types import TensorType, known, require


@dataclass(frozen=True)
class Patches(Op, name="patches", operands=("pixels",)):
    """Cuts images into patches, row by row: [batch, channels, height, width] -> [batch, patches, channels * h * w].

    A patch's values are in the order channel, row, column, as a convolution's kernel has them, so that a convolution
    whose stride is its kernel is a linear map of patches (Dosovitskiy et al. 2021).
    """

    height: int
    width: int

    def infer(self, pixels: TensorType) -> tuple[TensorType, ...]:
        require(pixels.rank == 4, f"pixels must be [batch, channels, height, width], not {pixels}")
        channels, height, width = (known(d, "an image's size") for d in pixels.shape[1:])
        fits = height % self.height == 0 and width % self.width == 0
        require(fits, f"an image of {height} x {width} does not split into patches of {self.height} x {self.width}")
        count = (height // self.height) * (width // self.width)
        return (pixels.with_shape(pixels.shape[0], count, channels * self.height * self.width),)

    def reference(self, pixels: Array) -> tuple[Array, ...]:
        batch, channels, height, width = pixels.shape
        grid = pixels.reshape(batch, channels, height // self.height, self.height, width // self.width, self.width)
        rows = grid.transpose(0, 2, 4, 1, 3, 5)
        return (np.ascontiguousarray(rows).reshape(batch, -1, channels * self.height * self.width),)


@dataclass(frozen=True)
class ExpandBatch(Op, name="expand_batch", operands=("x", "like")):
    """The same rows for every entry of a batch: x [1, n, width], like [batch, ...] -> [batch, n, width]."""

    def infer(self, x: TensorType, like: TensorType) -> tuple[TensorType, ...]:
        require(x.rank == 3 and x.shape[0] == 1, f"expected [1, n, width], not {x}")
        return (x.with_shape(like.shape[0], *x.shape[1:]),)

    def reference(self, x: Array, like: Array) -> tuple[Array, ...]:
        return (np.broadcast_to(x, (like.shape[0], *x.shape[1:])).copy(),)
