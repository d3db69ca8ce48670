"""A mask that is held to the columns of the cache, for kernels that would take another one."""

from __future__ import annotations

from dataclasses import dataclass

from flowc.ir.dtypes import ANY, INTEGER
from flowc.ir.op import Array, Op
from flowc.ir.types import TensorType, require


@dataclass(frozen=True)
class CheckColumns(
    Op,
    name="check_columns",
    operands=("mask", "past", "new"),
    dtypes={"mask": INTEGER, "past": ANY, "new": ANY},
    level="kernel",
):
    """The mask itself, int64 [batch, total]; a run stops unless it has one column for each cached and new token.

    past [batch, kv_heads, past, head_dim] any cached keys; new [batch, sequence, ...] any tensor over the new tokens.
    A kernel that can write new keys where the past lies takes a mask of fewer columns for a buffer in part use, and
    computes from it without a word.
    """

    category = "mask"
    measured = ("past", "new")

    def infer(self, mask: TensorType, past: TensorType, new: TensorType) -> tuple[TensorType, ...]:
        require(
            mask.rank == 2 and past.rank == 4 and new.rank >= 2, f"mask {mask}, past {past} and new {new} do not fit"
        )
        return (mask,)

    def reference(self, mask: Array, past: Array, new: Array) -> tuple[Array, ...]:
        if mask.shape[1] != past.shape[2] + new.shape[1]:
            raise ValueError(
                f"a mask of {mask.shape[1]} columns for {past.shape[2]} cached and {new.shape[1]} new tokens"
            )
        return (mask,)
