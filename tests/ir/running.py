"""One core operator at a time: its numpy meaning, and what onnxruntime gives for it on a target."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnxruntime

from flowc.ir.graph import Graph, Node, Origin, Output, Value, infer
from flowc.ir.interpret import interpret
from flowc.ir.op import Op
from flowc.ir.phases import ENCODE
from flowc.ir.types import TensorType
from tests.kernel_level import lowered as lower
from tests.oracle_io import Array

ort: Any = onnxruntime  # ships no types
TARGETS = ("ort-cpu", "portable", "portable-20")


def graph_of(op: Op, arrays: Sequence[Array | None], symbols: Sequence[str] = ()) -> Graph:
    """A graph of one operator whose operands are inputs; `symbols` name the first axes of all that have several.

    An empty symbol leaves the size of its axis known.
    """
    inputs: list[Value | None] = []
    for index, array in enumerate(arrays):
        if array is None:
            inputs.append(None)
            continue
        names = symbols if array.ndim > 1 else ()
        shape = tuple((names[i] if i < len(names) else "") or n for i, n in enumerate(array.shape))
        inputs.append(Value(f"input{index}", TensorType(array.dtype.name, shape)))
    outputs = tuple(Value(f"result{i}", t) for i, t in enumerate(infer(op, inputs)))
    node = Node(op, tuple(inputs), outputs, Origin("test", "test"))
    given = tuple(v for v in inputs if v is not None)
    return Graph(ENCODE, given, tuple(Output(v.name, v) for v in outputs), (node,))


def meaning(op: Op, *arrays: Array | None, symbols: Sequence[str] = ()) -> list[Array]:
    """Results of an operator by its numpy meaning."""
    graph = graph_of(op, arrays, symbols)
    return list(interpret(graph, _feeds(arrays), _no_weights).values())


def lowered(on: str, op: Op, *arrays: Array | None, symbols: Sequence[str] = ()) -> list[Array]:
    """Results of an operator from onnxruntime, as a target lowers it."""
    model = lower(graph_of(op, arrays, symbols), on)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(model.serialize(), options, ["CPUExecutionProvider"])
    taken = {i.name for i in session.get_inputs()}
    return session.run(None, {n: a for n, a in _feeds(arrays).items() if n in taken})


def _feeds(arrays: Sequence[Array | None]) -> dict[str, Array]:
    return {f"input{i}": a for i, a in enumerate(arrays) if a is not None}


def _no_weights(name: str, rows: slice | None) -> Array:
    raise AssertionError(f"the graph reads a weight, {name}")
