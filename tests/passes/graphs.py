"""Graphs made by hand, operator by operator, with random weights."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from flowc.ir.graph import Graph, Node, Origin, Output, Value, constant, infer
from flowc.ir.interpret import interpret
from flowc.ir.op import Op
from flowc.ir.phases import ENCODE
from flowc.ir.types import TensorType
from flowc.ir.weights.expressions import Constant, Tensor
from tests.passes.making import Array

B, S = "batch_size", "sequence_length"


class Maker:
    """Call it with an operator and its operands; `graph` is what was made."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.tensors: dict[str, Array] = {}
        self._rng = np.random.default_rng(0)

    def __call__(self, op: Op, *inputs: Value | None) -> Value:
        return self.all(op, *inputs)[0]

    def all(self, op: Op, *inputs: Value | None) -> tuple[Value, ...]:
        """All results of an operator."""
        outputs = tuple(Value(f"{op.name}{len(self.nodes)}.{i}", t) for i, t in enumerate(infer(op, inputs)))
        self.nodes.append(Node(op, inputs, outputs, Origin("test", "test")))
        return outputs

    def weight(self, *shape: int) -> Value:
        """A tensor of the checkpoint with random numbers."""
        name = f"w{len(self.tensors)}"
        self.tensors[name] = self._rng.standard_normal(shape).astype(np.float32)
        return constant(Tensor(name, shape))

    def graph(self, *inputs: Value, **outputs: Value) -> Graph:
        """The graph with these results."""
        return Graph(ENCODE, inputs, tuple(Output(n, v) for n, v in outputs.items()), tuple(self.nodes))

    def read(self, name: str, rows: slice | None) -> Array:
        """Reads a tensor, as a checkpoint does."""
        return self.tensors[name] if rows is None else self.tensors[name][rows]

    def run(self, graph: Graph, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """What a graph means."""
        return interpret(graph, feeds, self.read)


def tokens(width: int, name: str = "x") -> Value:
    """A float input [batch, sequence, width]."""
    return Value(name, TensorType("float32", (B, S, width)))


def ids(name: str = "ids") -> Value:
    """An integer input [batch, sequence]."""
    return Value(name, TensorType("int64", (B, S)))


def filled(number: float, *shape: int, dtype: str = "float32") -> Value:
    """A constant of one number that the compiler made."""
    return constant(Constant(np.full(shape, number, dtype)))
