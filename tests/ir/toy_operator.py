"""A new operator in one file: what it means, its traits, its emitter, and a stage that puts it into a flow.

Importing this registers all of them, as a module of flowc would; `test_toy_operator.py` does so and undoes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from flowc.frontend.builder import Builder
from flowc.frontend.stage import Stage, attr
from flowc.ir.graph import Node, Value
from flowc.ir.op import Array, Op
from flowc.ir.traits import Sizes
from flowc.ir.types import BATCH, SEQUENCE, TensorType, require
from flowc.ir.visibility import Visibility
from flowc.lowering.emit_attention import build_mask
from flowc.lowering.emitter import Emitter, emits
from flowc.stages.blocks.encoder import token_mask


@dataclass(frozen=True)
class WindowSum(Op, name="window_sum", operands=("x", "table", "ids", "mask")):
    """The sum of the `window` newest valid tokens up to each one, times a row of a table.

    x [batch, sequence, width], table [rows, width], ids int64 [batch, sequence], mask int64 [batch, sequence].
    """

    window: int

    category = "table"
    tables: ClassVar[Mapping[str, str]] = {"table": "ids"}
    scales_with = ("table",)

    def caption(self) -> str:
        return f"sum of {self.window}"

    def neutral(self) -> Mapping[str, float]:
        return {"mask": 1.0}

    def windows(self) -> tuple[int, ...]:
        return (self.window,)

    def macs(self, inputs: Sizes, outputs: Sequence[tuple[int, ...]]) -> int:
        batch, length, width = outputs[0]
        return batch * length * length * width

    def infer(
        self, x: TensorType, table: TensorType, ids: TensorType, mask: TensorType | None = None
    ) -> tuple[TensorType, ...]:
        require(table.rank == 2 and table.shape[1] == x.shape[2], f"table {table} does not fit {x}")
        require(ids.shape == x.shape[:2], f"ids {ids} are not those of {x}")
        return (x,)

    def reference(self, x: Array, table: Array, ids: Array, mask: Array | None = None) -> tuple[Array, ...]:
        length = x.shape[1]
        seen = Visibility.before(self.window).allowed(length, length, mask)
        return ((seen.astype(x.dtype) @ x) * table[ids],)


@emits(WindowSum)
def window_sum(e: Emitter, op: WindowSum, node: Node) -> None:
    x = node.need("x")
    seen = build_mask(e, Visibility.before(op.window), x, node.input("mask"), None, x)
    summed = e.op("MatMul", e.op("Cast", e.op("Squeeze", seen, e.ints(1)), to=1), e.need("x"))
    e.bind(e.op("Mul", summed, e.op("Gather", e.need("table"), e.need("ids"), axis=0)))


class WindowSumStage(Stage, name="window_sum"):
    """The sum of the newest tokens up to each one, times a row of a table."""

    weight: str = attr(doc="Name of the table.", main=True)
    rows: int = attr(doc="Rows of the table.", gt=0)
    input: str = attr(doc="Name of the ids.")
    window: int = attr(doc="How many tokens are summed.", gt=0)

    def expand(self, b: Builder, x: Value) -> Value:
        table = b.weight(self.weight, self.rows, x.shape[-1], at="weight")
        ids = b.input(self.input, TensorType("int64", (BATCH, SEQUENCE)))
        return b.op(WindowSum(self.window), x, table, ids, token_mask(b, x))
