"""Emitters of positions, masks, rope and attention."""

from __future__ import annotations

import numpy as np
import onnx_ir as onnx

from flowc.errors import InternalError
from flowc.ir.core.attention import AttentionMask
from flowc.ir.core.positions import Positions, TakeFirst, TakeLast
from flowc.ir.core.rope import Rope, RopeAngles, SwitchRows
from flowc.ir.graph import Node, Value
from flowc.ir.kernel.attention import MultiHeadAttention, OnnxAttention
from flowc.ir.kernel.cross_attention import OnnxCrossAttention
from flowc.ir.visibility import Visibility
from flowc.lowering.emitter import CONTRIB, DTYPES, Emitter, emits

_END = int(np.iinfo(np.int64).max)


def newest(e: Emitter, x: onnx.Value, total: Value, new: Value) -> onnx.Value:
    """The columns of the new tokens: x [.., total] -> [.., sequence]."""
    if total.shape[-1] == new.shape[1]:
        return x
    length = new.shape[1]
    start = (
        e.ints(-length) if isinstance(length, int) else e.shared(("-len", id(new)), lambda: e.op("Neg", e.size(new, 1)))
    )
    return e.op("Slice", x, start, e.ints(_END), e.ints(-1), label="Newest")


def _arange(e: Emitter, stop: onnx.Value, start: onnx.Value | None = None) -> onnx.Value:
    """int64 numbers start..stop-1 for one-element bounds."""
    first = e.array(0, "int64") if start is None else e.op("Squeeze", start)
    return e.op("Range", first, e.op("Squeeze", stop), e.array(1, "int64"))


def _places(e: Emitter, mask: Value) -> onnx.Value:
    """How many valid tokens stand before each column: int64 [batch, total]; meaningless where masked."""
    columns = e.get(mask)
    return e.shared(
        ("places", id(columns)),
        lambda: e.op("Sub", e.op("CumSum", columns, e.array(1, "int64")), e.array(1, "int64")),
    )


@emits(Positions)
def positions(e: Emitter, op: Positions, node: Node) -> None:
    new, mask, past = node.input("new"), node.input("mask"), node.input("past")
    assert new is not None
    if mask is not None and op.compact:
        e.bind(_compact_positions(e, mask, new))
        return
    if mask is not None:
        clipped = e.op("Mul", _places(e, mask), e.get(mask), label="ZeroWhereMasked")
        e.bind(newest(e, clipped, mask, new))
        return
    length = e.size(new, 1)
    start = e.size(past, 2) if past is not None else None
    stop = length if start is None else e.op("Add", start, length)
    e.bind(e.op("Expand", _arange(e, stop, start), e.sizes(new, (0, 1))))


def _compact_positions(e: Emitter, mask: Value, new: Value) -> onnx.Value:
    """Positions of new tokens that follow each row's own last one; 0 for a prompt's padding."""
    lengths, length = _row_lengths(e, mask), e.size(new, 1)
    places = _arange(e, length)
    if mask.shape[1] != new.shape[1]:
        places = e.op("Add", e.op("Max", e.op("Sub", lengths, e.computed(length)), e.ints(0)), places)
    return e.op("Mul", places, e.op("Cast", e.op("Less", places, lengths), to=7), label="ZeroWhereMasked")


def _row_lengths(e: Emitter, mask: Value) -> onnx.Value:
    """Valid columns of each row: int64 [batch, 1]."""
    onnx_value = e.get(mask)
    return e.shared(
        ("lengths", id(onnx_value)), lambda: e.op("ReduceSum", onnx_value, e.ints(1), keepdims=1, label="Lengths")
    )


@emits(TakeLast)
def take_last(e: Emitter, op: TakeLast, node: Node) -> None:
    x, mask = node.input("x"), node.input("mask")
    assert x is not None
    if mask is None:
        e.bind(e.op("Slice", e.get(x), e.ints(-1), e.ints(_END), e.ints(1)))
        return
    find = _last_compact if op.compact else _last_valid
    index = e.shared(("last", id(e.get(mask)), x.shape[1]), lambda: find(e, x, mask))
    e.bind(e.op("GatherND", e.get(x), index, batch_dims=1))


def greatest(e: Emitter, mask: onnx.Value, *, last: bool = False) -> onnx.Value:
    """The first or last column of each row's greatest number, of whole numbers that float32 holds: int64 [batch, 1].

    Older runtimes, and CUDA, have no ArgMax of whole numbers.
    """
    numbers = e.op("Cast", mask, to=int(DTYPES["float32"]))
    return e.op("ArgMax", numbers, axis=1, keepdims=1, select_last_index=int(last) or None)


@emits(TakeFirst)
def take_first(e: Emitter, op: TakeFirst, node: Node) -> None:
    mask = e.need("mask")
    index = e.shared(("first", id(mask)), lambda: e.op("Unsqueeze", greatest(e, mask), e.ints(2)))
    e.bind(e.op("GatherND", e.need("x"), index, batch_dims=1))


def _last_compact(e: Emitter, x: Value, mask: Value) -> onnx.Value:
    """Where each row's last own token stands among the new ones: int64 [batch, 1, 1]."""
    own = _row_lengths(e, mask)
    if mask.shape[1] != x.shape[1]:
        own = e.op("Min", own, e.computed(e.size(x, 1)))
    return e.op("Unsqueeze", e.op("Max", e.op("Sub", own, e.ints(1)), e.ints(0)), e.ints(2))


def _last_valid(e: Emitter, x: Value, mask: Value) -> onnx.Value:
    """Where each row's last valid new token stands among the new ones: int64 [batch, 1, 1]."""
    valid = newest(e, e.get(mask), mask, x)
    last = e.op("ReduceMax", e.op("Mul", valid, _arange(e, e.size(x, 1))), e.ints(1), keepdims=1, label="LastValid")
    return e.op("Unsqueeze", last, e.ints(2))


@emits(RopeAngles)
def rope_angles(e: Emitter, op: RopeAngles, node: Node) -> None:
    """Trigonometry at run time: what is left when the table was not folded."""
    facts = op.facts
    ids = e.need("position_ids")
    frequencies = e.array(facts.frequencies())
    if facts.switches:
        long = reaches_past(e, ids, facts.original_length)
        frequencies = e.op("Where", long, e.array(facts.frequencies(long=True)), frequencies)
    angles = e.op("Mul", e.op("Unsqueeze", e.op("Cast", ids, to=1), e.ints(-1)), frequencies)
    cos, sin = e.op("Cos", angles), e.op("Sin", angles)
    if facts.attention_factor != 1.0:
        factor = e.array(np.float32(facts.attention_factor))
        cos, sin = e.op("Mul", cos, factor), e.op("Mul", sin, factor)
    e.bind(cos, sin)


def reaches_past(e: Emitter, position_ids: onnx.Value, length: int) -> onnx.Value:
    """Whether a position of the call lies at or beyond `length`: a bool scalar."""
    top = e.op("ReduceMax", position_ids, keepdims=0)
    return e.op("GreaterOrEqual", top, e.array(length, "int64"))


@emits(SwitchRows)
def switch_rows(e: Emitter, op: SwitchRows, node: Node) -> None:
    ids = e.need("position_ids")
    far = reaches_past(e, ids, op.length)
    e.bind(e.op("Add", ids, e.op("Mul", e.op("Cast", far, to=7), e.array(op.rows, "int64")), label="Rows"))


@emits(Rope)
def rope(e: Emitter, op: Rope, node: Node) -> None:
    x, cos = node.input("x"), node.input("cos")
    assert x is not None and cos is not None
    tables = [e.need("cos"), e.need("sin")]
    if node.input("position_ids") is None and cos.shape[0] != x.shape[0]:
        tables = [_for_batch(e, table, x, int(cos.shape[2])) for table in tables]
    half, head_dim = int(cos.shape[-1]), int(x.shape[-1]) // op.heads
    rotary = 2 * half if 2 * half != head_dim else 0
    e.bind(
        e.op(
            "RotaryEmbedding", e.need("x"), *tables, e.operand("position_ids"),
            num_heads=op.heads, interleaved=int(op.interleaved), rotary_embedding_dim=rotary,
        )
    )  # fmt: skip


def _for_batch(e: Emitter, table: onnx.Value, x: Value, half: int) -> onnx.Value:
    """Angles of one row [1, sequence, half] for every row of x, made once for all layers."""
    return e.shared(("expand", id(table), x.shape[:2]), lambda: e.op("Expand", table, e.sizes(x, (0, 1), half)))


def build_mask(
    e: Emitter,
    seen: Visibility,
    new: Value,
    mask: Value | None,
    past: Value | None,
    keys: Value | None,
) -> onnx.Value:
    """Bool [batch or 1, 1, queries, total], True where a key is seen; see `AttentionMask`.

    What several masks of a graph have in common (valid keys, causal part, distances) is made once.
    """
    single = new.shape[1] == 1
    conditions = [_valid_keys(e, mask)] if mask is not None else []
    if seen.causal and not single:
        conditions.append(_causal(e, e.size(new, 1), _total(e, new, mask, past, keys)))
    if seen.left is not None or seen.right is not None:
        conditions += _near(e, seen, _distance(e, new, mask, past, keys))
    if not conditions:
        raise InternalError("a mask that hides nothing")
    combined = conditions[0]
    for condition in conditions[1:]:
        combined = e.op("And", combined, condition)
    if single:
        return combined
    # onnxruntime's Attention wants the query axis in full.
    queries, total = e.size(new, 1), _total(e, new, mask, past, keys)
    batch = e.size(mask, 0) if mask is not None else e.ints(1)
    full = e.shared(
        ("full mask", id(batch), id(queries), id(total)),
        lambda: e.op("Concat", batch, e.ints(1), queries, total, axis=0),
    )
    return e.op("Expand", combined, full, label="FullMask")


def _near(e: Emitter, seen: Visibility, distance: onnx.Value) -> list[onnx.Value]:
    """Keys that lie within the bounds on both sides, as conditions on the tokens from each key to each query."""
    if seen.left is not None and seen.left == seen.right:
        return [e.op("LessOrEqual", e.op("Abs", distance), e.array(seen.left, "int64"), label="Reach")]
    conditions: list[onnx.Value] = []
    if seen.window is not None:
        conditions.append(e.op("Less", distance, e.array(seen.window, "int64"), label="Window"))
    if seen.right is not None:
        conditions.append(e.op("GreaterOrEqual", distance, e.array(-seen.right, "int64"), label="Ahead"))
    return conditions


def _total(e: Emitter, new: Value, mask: Value | None, past: Value | None, keys: Value | None) -> onnx.Value:
    """Columns of the cache and the new tokens together, one element."""
    if mask is not None:
        return e.size(mask, 1)
    length = e.size(keys if keys is not None else new, 1)
    if past is None:
        return length
    before = e.size(past, 2)
    return e.shared(("total columns", id(before), id(length)), lambda: e.op("Add", before, length))


def _valid_keys(e: Emitter, mask: Value) -> onnx.Value:
    """Keys that are no padding: bool [batch, 1, 1, total]."""
    onnx_value = e.get(mask)
    return e.shared(
        ("valid keys", id(onnx_value)),
        lambda: e.op("Unsqueeze", e.op("Cast", onnx_value, to=9), e.ints(1, 2), label="ValidKeys"),
    )


def _causal(e: Emitter, queries: onnx.Value, total: onnx.Value) -> onnx.Value:
    """Columns that are no later than the query's own: bool [queries, total]."""

    def make() -> onnx.Value:
        rows = _arange(e, total, e.op("Sub", total, queries))
        return e.op("LessOrEqual", _arange(e, total), e.op("Unsqueeze", rows, e.ints(1)), label="Causal")

    return e.shared(("causal", id(queries), id(total)), make)


def _distance(e: Emitter, new: Value, mask: Value | None, past: Value | None, keys: Value | None) -> onnx.Value:
    """Valid tokens from each key to each query: int64 [batch or 1, 1, queries, total]."""
    queries = e.size(new, 1)
    over = e.get(mask) if mask is not None else _total(e, new, mask, past, keys)

    def make() -> onnx.Value:
        if mask is not None:
            places = _places(e, mask)
            at_key, at_query = places, newest(e, places, mask, new)
            axes = (1, 2), (1, 3)
        else:
            at_key, at_query = _arange(e, over), _arange(e, over, e.op("Sub", over, queries))
            axes = (0, 1, 2), (0, 1, 3)
        at_key, at_query = (
            e.op("Unsqueeze", at, e.ints(*where)) for at, where in zip((at_key, at_query), axes, strict=True)
        )
        return e.op("Sub", at_query, at_key, label="Distance")

    return e.shared(("distance", id(over), id(queries)), make)


@emits(AttentionMask)
def attention_mask(e: Emitter, op: AttentionMask, node: Node) -> None:
    mask, past, keys = node.input("mask"), node.input("past"), node.input("keys")
    e.bind(build_mask(e, op.visibility, node.need("new"), mask, past, keys))


def _masked_bias(e: Emitter, mask: onnx.Value, bias: onnx.Value) -> onnx.Value:
    """The bias where a key is seen and minus infinity elsewhere, made once for all layers that share both."""
    hidden = e.number(-np.inf)
    return e.shared(("bias", id(mask), id(bias)), lambda: e.op("Where", mask, bias, hidden, label="MaskedBias"))


@emits(OnnxAttention)
def onnx_attention(e: Emitter, op: OnnxAttention, node: Node) -> None:
    mask, bias = e.operand("mask"), e.operand("bias")
    if bias is not None:
        mask = bias if mask is None else _masked_bias(e, mask, bias)
    results = e.ops(
        "Attention", e.need("q"), e.need("k"), e.need("v"), mask, e.operand("past_key"), e.operand("past_value"),
        outputs=3 if op.cache else 1, q_num_heads=op.heads, kv_num_heads=op.kv_heads, scale=float(op.scale),
        is_causal=int(op.visibility.causal), softcap=op.softcap,
    )  # fmt: skip
    e.bind(*results)


@emits(OnnxCrossAttention)
def onnx_cross_attention(e: Emitter, op: OnnxCrossAttention, node: Node) -> None:
    """Queries get four axes, as the given keys have, and lose them again."""
    q, y = node.need("q"), node.outputs[0]
    head_dim = int(q.shape[-1]) // op.heads
    split = e.op("Reshape", e.need("q"), e.ints(0, 0, op.heads, head_dim))
    queries = e.op("Transpose", split, perm=[0, 2, 1, 3])
    queries.type, queries.shape = onnx.TensorType(DTYPES[q.dtype]), onnx.Shape((None, op.heads, None, head_dim))
    found = e.op("Attention", queries, e.need("key"), e.need("value"), e.operand("mask"), scale=float(op.scale))
    joined = e.op("Transpose", found, perm=[0, 2, 1, 3])
    e.bind(e.op("Reshape", joined, e.ints(0, 0, int(y.shape[-1]))))


@emits(MultiHeadAttention)
def multi_head_attention(e: Emitter, op: MultiHeadAttention, node: Node) -> None:
    e.bind(
        e.op(
            "MultiHeadAttention", e.need("q"), e.need("k"), e.need("v"), None, None, e.operand("bias"),
            domain=CONTRIB, num_heads=op.heads, scale=float(op.scale),
        )
    )  # fmt: skip
