"""Operators of newer opsets as onnxscript functions of opset 20, for runtimes that know no newer ones.

    RMSNormalization (23), RotaryEmbedding (23), Attention (23, 24)
    LayerNormalization without a bias: known to the opset, but not to the kernels of that time

`inline_decompositions` puts the functions in place of the operators of a finished model, in the forms in which flowc
emits them. The other operators that flowc emits mean in opset 20 what they mean in 24; whether each is there is
checked. Importing this module imports onnxscript: only targets of an older opset do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import onnx_ir as onnx
from onnx_ir.passes.common import InlinePass

from flowc.errors import InternalError
from flowc.ir.onnx_text.schemas import unknown
from flowc.lowering import opset20_functions as f20

OPSET = 20


def inline_decompositions(model: onnx.Model, ir_version: int, opset: int = OPSET) -> None:
    """Lower a model, in place, to an older opset, 20 at most: what that does not know is made of what it knows.

    Results keep their names; the operators that stand for one carry its metadata. InternalError where an
    operator is neither known to the opset nor one that the functions stand for.
    """
    if opset != OPSET:
        raise InternalError(f"the decompositions are functions of opset {OPSET}, not {opset}")
    calls = _Calls(model)
    for graph in [model.graph, *model.graph.subgraphs()]:
        for node in list(graph):
            decompose = _OF.get(node.op_type) if node.domain == "" else None
            if decompose is not None:
                calls.begin(graph, node)
                results = decompose(calls, node)
                if results is not None:
                    calls.end(results)
    model.opset_imports[""] = opset
    model.ir_version = ir_version
    InlinePass()(model)
    for node in model.graph.all_nodes():
        missing = unknown(node.op_type, node.attributes, opset) if node.domain == "" else ""
        if missing:
            raise InternalError(f"opset {opset} has no operator {missing}, and no function stands for it")


_FLOAT = int(onnx.DataType.FLOAT)
_HALVES = (onnx.DataType.FLOAT16, onnx.DataType.BFLOAT16)


class _Calls:
    """Calls of functions in place of one operator after another."""

    def __init__(self, model: onnx.Model) -> None:
        self._model = model
        self._graph = model.graph
        self._node: onnx.Node | None = None
        self._made: list[onnx.Node] = []
        self._half: onnx.DataType | None = None

    def begin(self, graph: onnx.Graph, node: onnx.Node) -> None:
        """What is called from now on stands for this operator."""
        self._graph, self._node, self._made, self._half = graph, node, [], None

    def __call__(self, function: Any, *inputs: onnx.Value, **attributes: Any) -> onnx.Value:
        node = self._node
        assert node is not None
        if (f20.DOMAIN, function.name, "") not in self._model.functions:
            found = cast("onnx.Function", onnx.from_proto(function.to_function_proto()))
            self._model.functions[found.identifier()] = found
        attrs = [onnx.convenience.convert_attribute(k, v) for k, v in attributes.items()]
        name = f"{node.name}/{function.name}_{len(self._made)}"
        result = onnx.Value(name=f"{name}:0")
        origin = dict(node.metadata_props)
        made = onnx.Node(f20.DOMAIN, function.name, inputs, attrs, outputs=[result], name=name, metadata_props=origin)
        self._made.append(made)
        return result

    def operands(self, node: onnx.Node, count: int) -> list[onnx.Value | None]:
        """The operands of a node, None for those that are left out; half-precision ones as float32."""
        given = list(node.inputs)
        if any(v is not None for v in given[count:]):
            raise InternalError(f"no function stands for {node.op_type} with operand {count + 1}")
        self._half = next((v.dtype for v in given if v is not None and v.dtype in _HALVES), None)
        if self._half is not None:  # a value without a type is one between two nodes of the same operator
            kinds = (self._half, None)
            given = [self(f20.cast, v, to=_FLOAT) if v is not None and v.dtype in kinds else v for v in given]
        return [*given, *[None] * count][:count]

    def end(self, results: Sequence[onnx.Value]) -> None:
        """The results of the operator are these, rounded to half precision where its operands are of it."""
        node = self._node
        assert node is not None
        if self._half is not None:
            results = [self(f20.cast, r, to=int(self._half)) for r in results]
        onnx.convenience.replace_nodes_and_values(self._graph, node, [node], self._made, node.outputs, results)


def _numbers(node: onnx.Node, **defaults: Any) -> list[Any]:
    """Attributes of a node, or what they are when left out; InternalError for any other that is there."""
    strange = set(node.attributes) - set(defaults)
    if strange:
        raise InternalError(f"no function stands for {node.op_type} with {', '.join(sorted(strange))}")
    return [node.attributes[k].value if k in node.attributes else v for k, v in defaults.items()]


def _norm(call: _Calls, node: onnx.Node) -> list[onnx.Value]:
    axis, epsilon = _numbers(node, axis=-1, epsilon=1e-5)
    x, gain = call.operands(node, 2)
    assert x is not None and gain is not None
    if axis != -1:
        raise InternalError("no function stands for RMSNormalization over several axes")
    return [call(f20.rms_normalization, x, gain, epsilon=epsilon)]


def _layer_norm(call: _Calls, node: onnx.Node) -> list[onnx.Value] | None:
    axis, epsilon = _numbers(node, axis=-1, epsilon=1e-5)
    x, gain, bias = call.operands(node, 3)
    if bias is not None or axis != -1 or x is None or gain is None:
        return None
    return [call(f20.layer_normalization, x, gain, epsilon=epsilon)]


def _rope(call: _Calls, node: onnx.Node) -> list[onnx.Value]:
    heads, interleaved, _ = _numbers(node, num_heads=0, interleaved=0, rotary_embedding_dim=0)
    x, cos, sin, ids = call.operands(node, 4)
    assert x is not None and cos is not None and sin is not None
    if heads == 0:
        raise InternalError("no function stands for RotaryEmbedding of four axes")
    if ids is not None:
        cos, sin = call(f20.rows_of, cos, ids), call(f20.rows_of, sin, ids)
    turned = call(
        f20.rotate_pairs if interleaved else f20.rotate_halves,
        call(f20.by_heads, x, heads=heads),
        cos,
        sin,
    )
    return [call(f20.shaped_like, turned, x)]


def _attention(call: _Calls, node: onnx.Node) -> list[onnx.Value]:
    heads, kv_heads, scale, is_causal, softcap = _numbers(
        node, q_num_heads=0, kv_num_heads=0, scale=None, is_causal=0, softcap=0.0
    )
    q, k, v, mask, past_key, past_value = call.operands(node, 6)
    assert q is not None and k is not None and v is not None
    apart = heads == 0 and kv_heads == 0
    if apart:  # four axes: heads stand apart already
        heads, kv_heads = (x.shape[1] if x.shape is not None else 0 for x in (q, k))
    if not (isinstance(heads, int) and isinstance(kv_heads, int) and heads and kv_heads) or scale is None:
        raise InternalError("no function stands for Attention of unknown heads or without a scale")
    queries = q if apart else call(f20.heads_first, q, heads=heads)
    new_keys, values = (x if apart else call(f20.heads_first, x, heads=kv_heads) for x in (k, v))
    keys, past = new_keys, None
    if past_key is not None and past_value is not None:
        past, keys, values = (
            past_key,
            call(f20.joined, past_key, new_keys),
            call(f20.joined, past_value, values),
        )
    x = call(f20.scores, queries, keys, heads=heads, kv_heads=kv_heads, scale=scale)
    if softcap:
        x = call(f20.capped, x, softcap=softcap)
    seen: list[onnx.Value] = []
    if mask is not None and mask.dtype == onnx.DataType.BOOL:
        seen.append(mask)
    elif mask is not None:
        x = call(f20.added, x, mask)
        seen.append(call(f20.finite, mask))
    if is_causal:
        seen.append(call(f20.causal, queries, keys) if past is None else call(f20.causal_behind, queries, keys, past))
    both = call(f20.all_of, *seen) if len(seen) == 2 else None
    weights = call(f20.seen_shares, x, both or seen[0]) if seen else call(f20.shares, x)
    y = call(f20.mixed, weights, values, heads=heads, kv_heads=kv_heads)
    return [call(f20.heads_first, y, heads=heads) if apart else y, keys, values][: len(node.outputs)]


_OF: Mapping[str, Callable[[_Calls, onnx.Node], list[onnx.Value] | None]] = {
    "Attention": _attention, "LayerNormalization": _layer_norm, "RMSNormalization": _norm,
    "RotaryEmbedding": _rope,
}  # fmt: skip
"""What puts functions in place of an operator; None where it stays as it is."""
