"""Checks that a graph is well formed; run after expansion and after every pass."""

from __future__ import annotations

from flowc.errors import InternalError
from flowc.ir.graph import Graph, Node, Value, infer
from flowc.ir.op import Level
from flowc.ir.types import ShapeError, TensorType


def verify(graph: Graph, level: Level | None, after: str, before: Graph | None = None) -> None:
    """Raise InternalError unless every value is made once, before its uses, with the type that its operator infers.

    Every operator must belong to the `level`; None lets both stand, as they do while kernels are being chosen. `after`
    names what made the graph, for the message. `before` is a graph that was verified: of a node that stood in it only
    the place and the level are looked at anew, for a node never changes, and what its operator infers depends on it
    alone.
    """

    def fail(message: str) -> None:
        error = InternalError(f"after {after}, {graph.phase} graph: {message}")
        error.add_note(dump_around(graph, message))
        raise error

    made: set[Value] = set(graph.inputs)
    names: set[str] = {v.name for v in graph.inputs}
    typed: set[Node] = set(before.nodes) if before is not None else set()
    for node in graph.nodes:
        for value in node.inputs:
            if value is not None and value.weight is None and value not in made:
                fail(f"{_named(node)} reads %{value.name} before it is made")
        if level is not None and level not in node.op.levels:
            fail(f"{_named(node)} does not belong to the {level} level")
        if node not in typed:
            wrong = _mistyped(node)
            if wrong:
                fail(f"{_named(node)}{wrong}")
        for value in node.outputs:
            if value in made or value.name in names:
                fail(f"{_named(node)} makes %{value.name} a second time")
            made.add(value)
            names.add(value.name)
    for output in graph.outputs:
        if output.value not in made and output.value.weight is None:
            fail(f"output {output.name} is never made")
    if len({o.name for o in graph.outputs}) != len(graph.outputs):
        fail("two outputs have the same name")


def _named(node: Node) -> str:
    return f"{node.op.name} of {node.origin}"


def _mistyped(node: Node) -> str:
    """What is wrong with the types of a node's constants and results; empty when nothing is."""
    for value in node.inputs:
        weight = value.weight if value is not None else None
        if value is not None and weight is not None and value.type != TensorType(weight.dtype, weight.shape):
            found = TensorType(weight.dtype, weight.shape)
            return f": constant %{value.name} is {found}, its type says {value.type}"
    try:
        types = infer(node.op, node.inputs)
    except ShapeError as e:
        return f": {e}"
    said = tuple([v.type for v in node.outputs])
    return "" if types == said else f" makes {[str(t) for t in types]}, its results say {[str(t) for t in said]}"


def dump_around(graph: Graph, message: str) -> str:
    """The graph as text, for a bug report."""
    from flowc.ir.dump import dump

    return f"{message}\n{dump(graph)}"
