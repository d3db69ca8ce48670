"""A graph as text: one line a node, attributes that differ from their defaults, and the place in the spec."""

from __future__ import annotations

from typing import Any

from flowc.ir.graph import Graph, Node, Value


def dump(graph: Graph) -> str:
    """The whole graph; stable, with values named by their path in the spec."""
    inputs = ", ".join(f"%{v.name}: {v.type}" for v in graph.inputs)
    lines = [f"graph {graph.phase}({inputs}) {{"]
    lines += [f"  {_node(node)}" for node in graph.nodes]
    lines += [f"  return {o.name} = {_value(o.value)}" for o in graph.outputs]
    return "\n".join([*lines, "}", ""])


def _node(node: Node) -> str:
    results = ", ".join(f"%{v.name}" for v in node.outputs)
    operands = [_value(v) for v in node.inputs]
    while operands and operands[-1] == "_":
        operands.pop()
    attributes = ", ".join(f"{k} = {_attribute(v)}" for k, v in node.op.attributes().items())
    types = ", ".join(str(v.type) for v in node.outputs)
    braces = f" {{{attributes}}}" if attributes else ""
    return f"{results} = {node.op.name}({', '.join(operands)}){braces} : {types}  @ {node.origin}"


def _value(value: Value | None) -> str:
    if value is None:
        return "_"
    return value.weight.key if value.weight is not None else f"%{value.name}"


def _attribute(value: Any) -> str:
    return value if isinstance(value, str) else repr(value)
