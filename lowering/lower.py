"""One IR graph becomes one ONNX model, its weights still expressions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as onnx

from flowc.ir.graph import Graph
from flowc.ir.onnx_text.parse import OPSET
from flowc.ir.weights.expressions import Weight
from flowc.ir.weights.place import Place
from flowc.lowering import (
    emit_attention,
    emit_basic,
    emit_custom,
    emit_diffusion,
    emit_encoder,
    emit_experts,
    emit_group_query,
    emit_recurrent,
    emit_streams,
    emit_vision,
)
from flowc.lowering.emitter import CONTRIB, DTYPES, Emitter
from flowc.targets.target import Target

EMITTER_MODULES = (
    emit_attention,
    emit_basic,
    emit_custom,
    emit_diffusion,
    emit_group_query,
    emit_encoder,
    emit_experts,
    emit_recurrent,
    emit_streams,
    emit_vision,
)
"""Imported for the emitters they register."""


@dataclass(slots=True)
class Lowered:
    """An ONNX model whose initializers in `weights` have no data yet."""

    model: onnx.Model
    weights: Mapping[str, Weight]
    graph: Graph

    def serialize(self, places: Mapping[str, Place] | None = None) -> bytes:
        """The model file's bytes, the same for the same model; initializers are pointed at their places (by key)."""
        for name, value in self.model.graph.initializers.items():
            weight = self.weights.get(name)
            if weight is None or places is None:
                continue
            place = places[weight.key]
            value.const_value = onnx.ExternalTensor(
                place.file, place.offset, weight.nbytes, DTYPES[weight.dtype], shape=onnx.Shape(weight.shape), name=name
            )
        return onnx.to_proto(self.model).SerializeToString(deterministic=True)


def _read(nodes: Iterable[onnx.Node]) -> Iterator[onnx.Value]:
    """Every operand of the nodes and of the graphs inside them."""
    for node in nodes:
        yield from (v for v in node.inputs if v is not None)
        for attribute in node.attributes.values():
            if attribute.type == onnx.AttributeType.GRAPH:
                yield from _read(attribute.as_graph())


def lower(graph: Graph, target: Target, metadata: Mapping[str, str]) -> Lowered:
    """Emit a graph for a target; what its opset does not know is made of what it knows."""
    emitter = Emitter(graph)
    emitter.run()
    outputs = emitter.outputs()
    inputs = [emitter.get(v) for v in graph.inputs]
    opsets = {"": OPSET}
    if target.contrib:
        opsets[CONTRIB] = 1
    used = {id(v) for v in _read(emitter.nodes)}
    initializers = [v for v in emitter.initializers.values() if id(v) in used]
    onnx_graph = onnx.Graph(
        inputs, outputs, nodes=emitter.nodes, initializers=initializers, opset_imports=opsets, name=graph.name
    )
    model = onnx.Model(
        onnx_graph, ir_version=target.ir_version, producer_name="flowc", producer_version=metadata["flowc.version"],
        metadata_props=dict(metadata),
    )  # fmt: skip
    if target.opset != OPSET:
        from flowc.lowering.decompositions import inline_decompositions  # onnxscript: for such targets only

        inline_decompositions(model, target.ir_version, target.opset)
    return Lowered(model, emitter.weights, graph)
