"""Rows of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from flowc.ir.dtypes import ANY, INTEGER
from flowc.ir.op import Array, Op
from flowc.ir.types import TensorType, require
from flowc.ir.weights.expressions import Constant, Reshape, Rows, Weight


@dataclass(frozen=True)
class Gather(Op, name="gather", operands=("table", "ids"), dtypes={"table": ANY, "ids": INTEGER}):
    """Rows of `table` [rows, width] by integer `ids` [...]: [..., width] (ONNX Gather; torch nn.Embedding)."""

    category = "table"
    tables: ClassVar[Mapping[str, str]] = {"table": "ids"}
    tokenwise = ("ids",)
    exact = True
    scales_with = ("table",)

    def of_constants(self, operands: Sequence[Weight | None]) -> Weight | None:
        table, ids = operands
        if table is None or not isinstance(ids, Constant) or ids.values.size != 1:
            return None
        row = int(ids.values.reshape(-1)[0])
        return Reshape(Rows(table, row, row + 1), (*ids.shape, table.shape[1]))

    def infer(self, table: TensorType, ids: TensorType) -> tuple[TensorType, ...]:
        require(table.rank == 2, f"the table must be [rows, width], not {table}")
        require(ids.dtype in ("int64", "int32"), f"ids must be integers, not {ids}")
        return (TensorType(table.dtype, (*ids.shape, table.shape[1])),)

    def reference(self, table: Array, ids: Array) -> tuple[Array, ...]:
        return (table[ids],)
