"""Parts of newer operators as onnxscript functions of opset 20; `decompositions.py` puts them together.

onnxscript translates each function from its source, in which parameters without a default that are annotated are
attributes, and all others tensors.
"""

from __future__ import annotations

from typing import Any

from onnxscript import opset20, script
from onnxscript.values import Opset

# Tensors bear no annotation: to onnxscript one would be an element type.
# pyright: reportMissingParameterType=false, reportUnknownParameterType=false

DOMAIN = "flowc.decompositions"
_LOCAL = Opset(DOMAIN, 1)
op: Any = opset20


@script(_LOCAL, default_opset=op)
def rms_normalization(x, gain, epsilon: float):
    """`x / sqrt(mean(x^2) + epsilon) * gain` over the last axis."""
    mean = op.ReduceMean(op.Mul(x, x), op.Constant(value_ints=[-1]), keepdims=1)
    return op.Mul(op.Div(x, op.Sqrt(op.Add(mean, op.Constant(value_float=epsilon)))), gain)


@script(_LOCAL, default_opset=op)
def layer_normalization(x, gain, epsilon: float):
    """LayerNormalization without a bias, with one of zeros: onnxruntime 1.17 crashes where it fuses one without."""
    return op.LayerNormalization(x, gain, op.Sub(gain, gain), axis=-1, epsilon=epsilon)


@script(_LOCAL, default_opset=op)
def cast(x, to: int):
    """X in another element type."""
    return op.Cast(x, to=to)


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
