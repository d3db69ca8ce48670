"""Rows of a table."""

from __future__ import annotations

from dataclasses import dataclass

from flowc.ir.op import Array, Op
from flowc.ir.types import TensorType, require


@dataclass(frozen=True)
class Gather(Op, name="gather", operands=("table", "ids")):
    """Rows of `table` [rows, width] by integer `ids` [...]: [..., width] (ONNX Gather; torch nn.Embedding)."""

    tokenwise = ("ids",)
    exact = True

    def infer(self, table: TensorType, ids: TensorType) -> tuple[TensorType, ...]:
        require(table.rank == 2, f"the table must be [rows, width], not {table}")
        require(ids.dtype in ("int64", "int32"), f"ids must be integers, not {ids}")
        return (TensorType(table.dtype, (*ids.shape, table.shape[1])),)

    def reference(self, table: Array, ids: Array) -> tuple[Array, ...]:
        return (table[ids],)
