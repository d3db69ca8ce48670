"""Emitters of GroupQueryAttention and of what it takes: lengths per row, and a mask to add."""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as onnx

from flowc.ir.graph import Node, Value
from flowc.ir.kernel.columns import CheckColumns
from flowc.ir.kernel.group_query import GroupQueryAttention, MaskBias, PackedGroupQueryAttention, hidden_score
from flowc.lowering.emitter import CONTRIB, Emitter, emits

_INT32 = 6


@emits(MaskBias)
def mask_bias(e: Emitter, op: MaskBias, node: Node) -> None:
    bias = e.operand("bias")
    kept = bias if bias is not None else e.number(0)
    e.bind(e.op("Where", e.need("mask"), kept, e.array(hidden_score(node.outputs[0].dtype))))


@emits(CheckColumns)
def check_columns(e: Emitter, op: CheckColumns, node: Node) -> None:
    """A Split into one part of all the columns that there should be: no other mask has a part of that size."""
    columns = e.op("Add", e.size(node.need("past"), 2), e.size(node.need("new"), 1), label="Columns")
    e.bind(e.op("Split", e.need("mask"), columns, axis=1, label="OfAllColumns"))


@emits(GroupQueryAttention)
def group_query_attention(e: Emitter, op: GroupQueryAttention, node: Node) -> None:
    _emit(e, op, node, (e.need("q"), e.need("k"), e.need("v")), node.need("q"))


@emits(PackedGroupQueryAttention)
def packed_group_query_attention(e: Emitter, op: PackedGroupQueryAttention, node: Node) -> None:
    _emit(e, op.kernel, node, (e.need("qkv"), None, None), node.need("qkv"))


def _emit(e: Emitter, op: GroupQueryAttention, node: Node, operands: Sequence[onnx.Value | None], q: Value) -> None:
    """com.microsoft GroupQueryAttention; `seqlens_k` is each row's number of columns minus one."""
    past, mask, cos = node.input("past_key"), node.input("mask"), e.operand("cos")
    key = (id(e.get(mask)) if mask is not None else None, past is not None)
    total = e.shared(("total", *key), lambda: _total(e, node, q))
    last = e.shared(("last columns", op.compact, op.static, *key), lambda: _last_columns(e, op, node, q))
    ragged = None
    if op.ragged and past is not None and q.shape[1] != 1:
        # Several new tokens over a past: each row says how many of them are its own.
        ragged = e.shared(("new", id(last), q.shape[1]), lambda: _new_tokens(e, q, last))
    e.bind(
        *e.ops(
            "GroupQueryAttention", *operands, e.operand("past_key"), e.operand("past_value"), last, total,
            cos, e.operand("sin"), None, e.operand("bias"), None, None, None, None, None, ragged,
            domain=CONTRIB, outputs=3, num_heads=op.heads, kv_num_heads=op.kv_heads, scale=float(op.scale),
            do_rotary=int(cos is not None), rotary_interleaved=int(op.interleaved) if cos is not None else None,
            local_window_size=op.window, softcap=op.softcap,
        )
    )  # fmt: skip


def _total(e: Emitter, node: Node, q: Value) -> onnx.Value:
    """Columns of the cache and the new tokens together: int32 [1]."""
    past, mask = node.input("past_key"), node.input("mask")
    if mask is not None:
        total = e.size(mask, 1)
    else:
        total = e.size(q, 1) if past is None else e.op("Add", e.size(past, 2), e.size(q, 1))
    return e.op("Cast", total, to=_INT32, label="Total")


def _last_columns(e: Emitter, op: GroupQueryAttention, node: Node, q: Value) -> onnx.Value:
    """Columns of each row minus one: int32 [batch]."""
    mask = node.input("mask")
    if op.static and mask is not None and not op.compact:
        # The new token's column is the last one that counts in any row; behind it the buffer is free.
        columns = e.op("Range", e.array(0, "int64"), e.op("Squeeze", e.size(mask, 1)), e.array(1, "int64"))
        last = e.op("ReduceMax", e.op("Mul", e.get(mask), columns), keepdims=0, label="LastColumn")
        return e.op("Expand", e.op("Cast", last, to=_INT32), e.sizes(mask, (0,)))
    if op.compact and mask is not None:
        ones = e.op("ReduceSum", e.get(mask), e.ints(1), keepdims=0, label="RowLengths")
        rows = e.op("Cast", ones, to=_INT32)
    else:
        last = e.computed(e.op("Sub", _total(e, node, q), e.array([1], "int32")), "int32")
        return e.op("Expand", last, e.sizes(mask or q, (0,)), label="LastColumns")
    return e.op("Sub", rows, e.array([1], "int32"), label="LastColumns")


def _new_tokens(e: Emitter, q: Value, last: onnx.Value) -> onnx.Value:
    """How many of the new tokens are a row's own: int32 [batch]; the rest of a prompt's row is padding."""
    length = e.op("Cast", e.size(q, 1), to=_INT32)
    return e.op("Min", length, e.op("Add", last, e.array([1], "int32")), label="NewTokens")
