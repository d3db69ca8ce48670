"""Emitter of subgraphs in ONNX text form: their nodes become nodes of the graph."""

from __future__ import annotations

from typing import cast

import onnx_ir as onnx

from flowc.errors import InternalError
from flowc.ir.core.custom import Custom
from flowc.ir.graph import Node
from flowc.ir.onnx_text import parse as onnx_text
from flowc.lowering.emitter import Emitter, emits


@emits(Custom)
def custom(e: Emitter, op: Custom, node: Node) -> None:
    """Take over every node under fresh names; values that go straight through get an Identity."""
    graph = cast("onnx.Graph", onnx.from_proto(onnx_text.parse(op.text)))
    # What only a nested graph reads must be made by a node, or lowering would take it for unused.
    nested = any(isinstance(a.value, onnx.Graph) for n in graph for a in n.attributes.values())
    for onnx_value, ours in zip(list(graph.inputs), node.inputs, strict=True):
        if ours is None:
            raise InternalError("a custom operator without an operand")
        value = e.get(ours)
        _stand_in(onnx_value, e.op("Identity", value, label=onnx_value.name or "Value") if nested else value)
    for onnx_value in list(graph.initializers.values()):
        if onnx_value.const_value is None:
            raise InternalError(f"the initializer '{onnx_value.name}' has no values")
        value = e.array(onnx_value.const_value.numpy())
        _stand_in(onnx_value, e.op("Identity", value, label=onnx_value.name or "Value") if nested else value)
    results = list(graph.outputs)
    graph.outputs.clear()
    nodes = list(graph)
    graph.remove(nodes)
    for taken in nodes:
        e.adopt(taken)
    made = {id(v) for n in nodes for v in n.outputs}
    bound: list[onnx.Value] = []
    for value in results:
        straight = id(value) not in made or any(value is b for b in bound)
        bound.append(e.op("Identity", value, label="Through") if straight else value)
    e.bind(*bound)


def _stand_in(old: onnx.Value, new: onnx.Value) -> None:
    """Let every reader of `old`, in nested graphs too, read `new`."""
    old.replace_all_uses_with(new, replace_graph_outputs=True)
