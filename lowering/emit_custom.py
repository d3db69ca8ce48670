"""Emitter of subgraphs in ONNX text form: their nodes become nodes of the graph."""

from __future__ import annotations

from typing import cast

import onnx_ir as onnx

from flowc.errors import InternalError, SpecError
from flowc.ir.core.custom import Custom
from flowc.ir.graph import Node
from flowc.ir.onnx_text import parse as onnx_text
from flowc.lowering.emitter import Emitter, emits


@emits(Custom)
def custom(e: Emitter, op: Custom, node: Node) -> None:
    """Take over every node under fresh names; values that go straight through get an Identity."""
    _refuse_newer(e, op, node)
    if onnx_text.uses_contrib(op.text) and not e.target.contrib:
        names = sorted({n.op_type for n in onnx_text.nodes(onnx_text.parse(op.text)) if n.domain == onnx_text.CONTRIB})
        raise SpecError.of(
            "bad-custom", f"target '{e.target.name}' has standard operators only, not {', '.join(names)}",
            node.origin.span, f"build for a target with operators of {onnx_text.CONTRIB}",
        )  # fmt: skip
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


def _refuse_newer(e: Emitter, op: Custom, node: Node) -> None:
    """SpecError for a text with an operator that is newer than the target's opset."""
    if e.target.opset == onnx_text.OPSET:
        return
    from flowc.lowering.decompositions import unknown

    for inner in onnx_text.nodes(onnx_text.parse(op.text)):
        missing = unknown(inner.op_type, [a.name for a in inner.attribute], e.target.opset) if not inner.domain else ""
        if missing:
            raise SpecError.of(
                "bad-custom", f"target '{e.target.name}' has operators of opset {e.target.opset}, not {missing}",
                node.origin.span, "the target `portable` has it",
            )  # fmt: skip


def _stand_in(old: onnx.Value, new: onnx.Value) -> None:
    """Let every reader of `old`, in nested graphs too, read `new`."""
    old.replace_all_uses_with(new, replace_graph_outputs=True)
