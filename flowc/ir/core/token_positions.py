"""Where tokens stand, for tables of learned position embeddings, and masks that hide nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flowc.ir.dtypes import ANY, INTEGER
from flowc.ir.op import Array, Op
from flowc.ir.types import TensorType, require


@dataclass(frozen=True)
class Columns(Op, name="columns", operands=("new",), dtypes={"new": ANY}):
    """0, 1, 2 ... over the tokens of new [batch, sequence, ...], padding included: int64 [1, sequence] (HF BERT)."""

    exact = True

    def infer(self, new: TensorType) -> tuple[TensorType, ...]:
        require(new.rank >= 2, f"expected [batch, sequence, ...], not {new}")
        return (TensorType("int64", (1, new.shape[1])),)

    def reference(self, new: Array) -> tuple[Array, ...]:
        return (np.arange(new.shape[1], dtype=np.int64)[None],)


@dataclass(frozen=True)
class PositionsFromIds(Op, name="positions_from_ids", operands=("ids",), dtypes={"ids": INTEGER}):
    """Positions that skip the padding token: int64 [batch, sequence] of ids to the same of positions.

    The first token that is not `pad` has the position pad + 1, the next one pad + 2; padding has the position pad
    (HF RoBERTa `create_position_ids_from_input_ids`).
    """

    pad: int

    exact = True

    def infer(self, ids: TensorType) -> tuple[TensorType, ...]:
        require(ids.rank == 2 and ids.dtype == "int64", f"ids must be int64 [batch, sequence], not {ids}")
        return (ids,)

    def reference(self, ids: Array) -> tuple[Array, ...]:
        real = (ids != self.pad).astype(np.int64)
        return (np.cumsum(real, axis=1) * real + self.pad,)


@dataclass(frozen=True)
class AllOnes(Op, name="all_ones", operands=("new",), dtypes={"new": ANY}):
    """A mask without padding over the tokens of new [batch, sequence, ...]: int64 ones [batch, sequence]."""

    exact = True
    uniform = 1.0

    def infer(self, new: TensorType) -> tuple[TensorType, ...]:
        require(new.rank >= 2, f"expected [batch, sequence, ...], not {new}")
        return (TensorType("int64", new.shape[:2]),)

    def reference(self, new: Array) -> tuple[Array, ...]:
        return (np.ones(new.shape[:2], np.int64),)
