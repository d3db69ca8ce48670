"""Parts of a sequence whose length is only known at run time."""

from __future__ import annotations

from dataclasses import dataclass

from flowc.ir.dtypes import ANY
from flowc.ir.op import Array, Op
from flowc.ir.types import TensorType, require


@dataclass(frozen=True)
class PartLike(Op, name="part_like", operands=("x", "like"), dtypes={"x": ANY, "like": ANY}):
    """The first, or with `last` the last, tokens of x [batch, sequence, ...]: as many as `like` [batch, n, ...] has."""

    last: bool

    exact = True

    def infer(self, x: TensorType, like: TensorType) -> tuple[TensorType, ...]:
        require(x.rank >= 2 and like.rank >= 2, f"expected [batch, sequence, ...], not {x} and {like}")
        size, whole = like.shape[1], x.shape[1]
        require(not isinstance(size, int) or not isinstance(whole, int) or size <= whole,
                f"{x} has no {size} tokens")  # fmt: skip
        return (x.with_shape(x.shape[0], size, *x.shape[2:]),)

    def reference(self, x: Array, like: Array) -> tuple[Array, ...]:
        size = like.shape[1]
        return (x[:, x.shape[1] - size :] if self.last else x[:, :size],)
