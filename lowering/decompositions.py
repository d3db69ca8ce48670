"""Operators of newer opsets as onnxscript functions of opset 20, for runtimes that know no newer ones.

    RMSNormalization (23), RotaryEmbedding (23), Attention (23, 24)

`inline_decompositions` puts the functions in place of the operators of a finished model, in the forms in which flowc
emits them. The other operators that flowc emits mean in opset 20 what they mean in 24; whether each is there is
checked. Importing this module imports onnxscript: only targets of an older opset do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import onnx_ir as onnx
from onnx import defs
from onnx_ir.passes.common import InlinePass
from onnxscript import opset20 as op
from onnxscript import script
from onnxscript.values import Opset

from flowc.errors import InternalError, SpecError

# Each function is translated to ONNX from its source: names of attributes are those of the operator that it is for.
# Inputs and results are tensors, which onnxscript leaves untyped.
# pyright: reportUnknownParameterType=false, reportMissingParameterType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportCallIssue=false

OPSET = 20
DOMAIN = "flowc.decompositions"
_LOCAL = Opset(DOMAIN, 1)


@script(_LOCAL, default_opset=op)
def rms_normalization(x, gain, epsilon: float):
    """`x / sqrt(mean(x^2) + epsilon) * gain` over the last axis."""
    mean = op.ReduceMean(op.Mul(x, x), op.Constant(value_ints=[-1]), keepdims=1)
    return op.Mul(op.Div(x, op.Sqrt(op.Add(mean, op.Constant(value_float=epsilon)))), gain)


@script(_LOCAL, default_opset=op)
def by_heads(x, heads: int):
    """[batch, tokens, heads * width] -> [batch, tokens, heads, width]."""
    count = op.Reshape(op.Constant(value_int=heads), op.Constant(value_ints=[1]))
    return op.Reshape(x, op.Concat(op.Constant(value_ints=[0, 0]), count, op.Constant(value_ints=[-1]), axis=0))


@script(_LOCAL, default_opset=op)
def heads_first(x, heads: int):
    """[batch, tokens, heads * width] -> [batch, heads, tokens, width]."""
    count = op.Reshape(op.Constant(value_int=heads), op.Constant(value_ints=[1]))
    split = op.Reshape(x, op.Concat(op.Constant(value_ints=[0, 0]), count, op.Constant(value_ints=[-1]), axis=0))
    return op.Transpose(split, perm=[0, 2, 1, 3])


@script(_LOCAL, default_opset=op)
def rows_of(table, ids):
    """Rows of a table [positions, half] for ids [batch, tokens]."""
    return op.Gather(table, ids)


@script(_LOCAL, default_opset=op)
def rotate_halves(heads, cos, sin):
    """Rotates channel i with channel i + half, by tables [batch or 1, tokens, half]; further channels stay."""
    axis = op.Constant(value_ints=[3])
    half = op.Shape(cos, start=2)
    twice = op.Add(half, half)
    a = op.Slice(heads, op.Constant(value_ints=[0]), half, axis)
    b = op.Slice(heads, half, twice, axis)
    rest = op.Slice(heads, twice, op.Constant(value_ints=[9223372036854775807]), axis)
    c = op.Unsqueeze(cos, op.Constant(value_ints=[2]))
    s = op.Unsqueeze(sin, op.Constant(value_ints=[2]))
    first = op.Sub(op.Mul(a, c), op.Mul(b, s))
    second = op.Add(op.Mul(b, c), op.Mul(a, s))
    return op.Concat(first, second, rest, axis=3)


@script(_LOCAL, default_opset=op)
def rotate_pairs(heads, cos, sin):
    """Rotates channel 2i with channel 2i + 1, by tables [batch or 1, tokens, half]; further channels stay."""
    axis = op.Constant(value_ints=[3])
    half = op.Shape(cos, start=2)
    twice = op.Add(half, half)
    turned = op.Slice(heads, op.Constant(value_ints=[0]), twice, axis)
    rest = op.Slice(heads, twice, op.Constant(value_ints=[9223372036854775807]), axis)
    two = op.Constant(value_ints=[2])
    pairs = op.Reshape(turned, op.Concat(op.Constant(value_ints=[0, 0, 0]), half, two, axis=0))
    a, b = op.Split(pairs, axis=4, num_outputs=2)
    c = op.Unsqueeze(cos, op.Constant(value_ints=[2, 4]))
    s = op.Unsqueeze(sin, op.Constant(value_ints=[2, 4]))
    both = op.Concat(op.Sub(op.Mul(a, c), op.Mul(b, s)), op.Add(op.Mul(b, c), op.Mul(a, s)), axis=4)
    return op.Concat(op.Reshape(both, op.Concat(op.Constant(value_ints=[0, 0, 0]), twice, axis=0)), rest, axis=3)


@script(_LOCAL, default_opset=op)
def shaped_like(y, x):
    """Y in the shape of x."""
    return op.Reshape(y, op.Shape(x))


@script(_LOCAL, default_opset=op)
def joined(past, new):
    """Cached keys or values [batch, heads, past, width] and the new ones behind them."""
    return op.Concat(past, new, axis=2)


@script(_LOCAL, default_opset=op)
def scores(q, k, heads: int, kv_heads: int, scale: float):
    """`q k^T * scale` of q [batch, heads, queries, width] and k [batch, kv_heads, keys, width] -> [batch, heads, ...].

    Heads share keys in groups: q is [batch, kv_heads, group * queries, width] for the product.
    """
    shared = op.Reshape(op.Constant(value_int=kv_heads), op.Constant(value_ints=[1]))
    count = op.Reshape(op.Constant(value_int=heads), op.Constant(value_ints=[1]))
    width = op.Shape(q, start=3)
    zero = op.Constant(value_ints=[0])
    rest = op.Constant(value_ints=[-1])
    grouped = op.Reshape(op.Mul(q, op.Constant(value_float=scale)), op.Concat(zero, shared, rest, width, axis=0))
    product = op.MatMul(grouped, op.Transpose(k, perm=[0, 1, 3, 2]))
    return op.Reshape(product, op.Concat(zero, count, op.Shape(q, start=2, end=3), op.Shape(k, start=2, end=3), axis=0))


@script(_LOCAL, default_opset=op)
def capped(x, softcap: float):
    """`tanh(x / softcap) * softcap`."""
    cap = op.Constant(value_float=softcap)
    return op.Mul(op.Tanh(op.Div(x, cap)), cap)


@script(_LOCAL, default_opset=op)
def added(x, bias):
    """Scores and what is added to them."""
    return op.Add(x, bias)


@script(_LOCAL, default_opset=op)
def causal(q, keys):
    """Which keys a query sees: those up to its own; bool [queries, keys]."""
    zero = op.Constant(value_int=0)
    one = op.Constant(value_int=1)
    columns = op.Range(zero, op.Squeeze(op.Shape(keys, start=2, end=3)), one)
    rows = op.Range(zero, op.Squeeze(op.Shape(q, start=2, end=3)), one)
    return op.LessOrEqual(columns, op.Unsqueeze(rows, op.Constant(value_ints=[-1])))


@script(_LOCAL, default_opset=op)
def causal_behind(q, keys, past):
    """The same where the keys of a past stand before those of the queries."""
    zero = op.Constant(value_int=0)
    one = op.Constant(value_int=1)
    columns = op.Range(zero, op.Squeeze(op.Shape(keys, start=2, end=3)), one)
    rows = op.Range(zero, op.Squeeze(op.Shape(q, start=2, end=3)), one)
    last = op.Add(rows, op.Shape(past, start=2, end=3))
    return op.LessOrEqual(columns, op.Unsqueeze(last, op.Constant(value_ints=[-1])))


@script(_LOCAL, default_opset=op)
def all_of(a, b):
    """What both keep."""
    return op.And(a, b)


@script(_LOCAL, default_opset=op)
def finite(bias):
    """Where a number to add to a score is one: minus infinity hides a key."""
    return op.Greater(bias, op.Constant(value_float=-3.4028234663852886e38))


@script(_LOCAL, default_opset=op)
def shares(x):
    """Softmax over the keys."""
    return op.Softmax(x, axis=-1)


@script(_LOCAL, default_opset=op)
def seen_shares(x, seen):
    """Softmax over the keys that are seen; zeros where none is."""
    weights = op.Softmax(op.Where(seen, x, op.Constant(value_float=-3.4028234663852886e38)), axis=-1)
    return op.Where(seen, weights, op.Constant(value_float=0.0))


@script(_LOCAL, default_opset=op)
def mixed(weights, v, heads: int, kv_heads: int):
    """Values [batch, kv_heads, keys, width] mixed by weights [batch, heads, queries, keys] -> [batch, queries, ...]."""
    shared = op.Reshape(op.Constant(value_int=kv_heads), op.Constant(value_ints=[1]))
    count = op.Reshape(op.Constant(value_int=heads), op.Constant(value_ints=[1]))
    zero = op.Constant(value_ints=[0])
    rest = op.Constant(value_ints=[-1])
    grouped = op.Reshape(weights, op.Concat(zero, shared, rest, op.Shape(weights, start=3), axis=0))
    product = op.MatMul(grouped, v)
    queries = op.Shape(weights, start=2, end=3)
    split = op.Reshape(product, op.Concat(zero, count, queries, op.Shape(v, start=3), axis=0))
    return op.Reshape(op.Transpose(split, perm=[0, 2, 1, 3]), op.Constant(value_ints=[0, 0, -1]))


def inline_decompositions(model: onnx.Model, ir_version: int, opset: int = OPSET) -> None:
    """Lower a model, in place, to an older opset, 20 at most: what that does not know is made of what it knows.

    Results keep their names; the operators that stand for one carry its metadata. SpecError for a subgraph of the
    spec's own that the opset cannot say, InternalError for anything else that it cannot.
    """
    if opset != OPSET:
        raise InternalError(f"the decompositions are functions of opset {OPSET}, not {opset}")
    calls = _Calls(model)
    for graph in [model.graph, *model.graph.subgraphs()]:
        for node in list(graph):
            decompose = _OF.get(node.op_type) if node.domain == "" else None
            if decompose is not None:
                calls.begin(graph, node)
                calls.end(decompose(calls, node))
    model.opset_imports[""] = opset
    model.ir_version = ir_version
    InlinePass()(model)
    for node in model.graph.all_nodes():
        _known(node, opset)


def _known(node: onnx.Node, opset: int) -> None:
    """Raise where the opset has no such operator, or no such attribute of it."""
    name = node.op_type
    if node.domain != "":
        return
    try:
        schema: Any = defs.get_schema(name, opset)
    except defs.SchemaError:
        schema = None
    strange = [] if schema is None else [a for a in node.attributes if a not in schema.attributes]
    if schema is not None and not strange:
        return
    what = f"the operator '{name}'" + (f" with the attribute '{strange[0]}'" if strange else "")
    stage = node.metadata_props.get("flowc.stage", "")
    if "custom" in stage:
        message = f"{what} of the subgraph of {stage} is not in opset {opset}, for which the target is"
        raise SpecError.of("bad-custom", message, hint="the target `portable` has it")
    raise InternalError(f"opset {opset} has no {what.removeprefix('the ')}, and no function stands for it")


class _Calls:
    """Calls of the functions above in place of one operator after another."""

    def __init__(self, model: onnx.Model) -> None:
        self._model = model
        self._graph = model.graph
        self._node: onnx.Node | None = None
        self._made: list[onnx.Node] = []

    def begin(self, graph: onnx.Graph, node: onnx.Node) -> None:
        """What is called from now on stands for this operator."""
        self._graph, self._node, self._made = graph, node, []

    def __call__(self, function: Any, *inputs: onnx.Value, **attributes: Any) -> onnx.Value:
        node = self._node
        assert node is not None
        found = onnx.from_proto(function.to_function_proto())
        assert isinstance(found, onnx.Function)
        self._model.functions.setdefault(found.identifier(), found)
        attrs = [onnx.convenience.convert_attribute(k, v) for k, v in attributes.items()]
        name = f"{node.name}/{function.name}_{len(self._made)}"
        result = onnx.Value(name=f"{name}:0")
        made = onnx.Node(
            DOMAIN, function.name, inputs, attrs, outputs=[result], name=name, metadata_props=dict(node.metadata_props)
        )
        self._made.append(made)
        return result

    def end(self, results: Sequence[onnx.Value]) -> None:
        """The results of the operator are these."""
        node = self._node
        assert node is not None
        onnx.convenience.replace_nodes_and_values(self._graph, node, [node], self._made, node.outputs, results)


def _numbers(node: onnx.Node, **defaults: Any) -> list[Any]:
    """Attributes of a node, or what they are when left out; InternalError for any other that is there."""
    strange = set(node.attributes) - set(defaults)
    if strange:
        raise InternalError(f"no function stands for {node.op_type} with {', '.join(sorted(strange))}")
    return [node.attributes[k].value if k in node.attributes else v for k, v in defaults.items()]


def _operands(node: onnx.Node, count: int) -> list[onnx.Value | None]:
    """The operands of a node, None for those that are left out."""
    given = list(node.inputs)
    if any(v is not None for v in given[count:]):
        raise InternalError(f"no function stands for {node.op_type} with operand {count + 1}")
    return [*given, *[None] * count][:count]


def _norm(call: _Calls, node: onnx.Node) -> list[onnx.Value]:
    axis, epsilon = _numbers(node, axis=-1, epsilon=1e-5)
    x, gain = _operands(node, 2)
    assert x is not None and gain is not None
    if axis != -1:
        raise InternalError("no function stands for RMSNormalization over several axes")
    return [call(rms_normalization, x, gain, epsilon=epsilon)]


def _rope(call: _Calls, node: onnx.Node) -> list[onnx.Value]:
    heads, interleaved, _ = _numbers(node, num_heads=0, interleaved=0, rotary_embedding_dim=0)
    x, cos, sin, ids = _operands(node, 4)
    assert x is not None and cos is not None and sin is not None
    if heads == 0:
        raise InternalError("no function stands for RotaryEmbedding of four axes")
    if ids is not None:
        cos, sin = call(rows_of, cos, ids), call(rows_of, sin, ids)
    turned = call(rotate_pairs if interleaved else rotate_halves, call(by_heads, x, heads=heads), cos, sin)
    return [call(shaped_like, turned, x)]


def _attention(call: _Calls, node: onnx.Node) -> list[onnx.Value]:
    heads, kv_heads, scale, is_causal, softcap = _numbers(
        node, q_num_heads=0, kv_num_heads=0, scale=None, is_causal=0, softcap=0.0
    )
    q, k, v, mask, past_key, past_value = _operands(node, 6)
    assert q is not None and k is not None and v is not None
    if heads == 0 or kv_heads == 0 or scale is None:
        raise InternalError("no function stands for Attention of four axes or without a scale")
    queries = call(heads_first, q, heads=heads)
    new_keys, values = call(heads_first, k, heads=kv_heads), call(heads_first, v, heads=kv_heads)
    keys, past = new_keys, None
    if past_key is not None and past_value is not None:
        past, keys, values = past_key, call(joined, past_key, new_keys), call(joined, past_value, values)
    x = call(scores, queries, keys, heads=heads, kv_heads=kv_heads, scale=scale)
    if softcap:
        x = call(capped, x, softcap=softcap)
    seen: list[onnx.Value] = []
    if mask is not None and mask.dtype == onnx.DataType.BOOL:
        seen.append(mask)
    elif mask is not None:
        x = call(added, x, mask)
        seen.append(call(finite, mask))
    if is_causal:
        seen.append(call(causal, queries, keys) if past is None else call(causal_behind, queries, keys, past))
    both = call(all_of, *seen) if len(seen) == 2 else None
    weights = call(seen_shares, x, both or seen[0]) if seen else call(shares, x)
    return [call(mixed, weights, values, heads=heads, kv_heads=kv_heads), keys, values][: len(node.outputs)]


_OF = {"RMSNormalization": _norm, "RotaryEmbedding": _rope, "Attention": _attention}
