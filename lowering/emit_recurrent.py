"""Emitters of the gated delta rule and of the causal convolution with state."""

from __future__ import annotations

import numpy as np
import onnx_ir as onnx

from flowc.ir.graph import Node, Value
from flowc.ir.kernel.recurrent import (
    CausalConvWithState,
    ConvStep,
    ConvTokens,
    DeltaChunks,
    DeltaStep,
    LinearAttention,
)
from flowc.lowering.delta_rule import in_chunks, one_step
from flowc.lowering.emit_attention import newest
from flowc.lowering.emitter import CONTRIB, Emitter, emits


def _valid(e: Emitter, mask: Value, x: Value) -> onnx.Value:
    """The mask of the new tokens alone: int64 [batch, sequence]."""
    onnx_value = e.get(mask)
    return e.shared(("valid", id(onnx_value), x.shape[1]), lambda: newest(e, onnx_value, mask, x))


def _moved(e: Emitter, valid: onnx.Value) -> onnx.Value:
    """Whether each token moves a state: bool [batch, sequence, 1]."""
    return e.shared(
        ("moved", id(valid)), lambda: e.op("Unsqueeze", e.op("Cast", valid, to=9), e.ints(-1), label="Moved")
    )


# The gated delta rule


@emits(LinearAttention)
def linear_attention(e: Emitter, op: LinearAttention, node: Node) -> None:
    g, beta = _gates(e, node)
    e.bind(
        *e.ops(
            "LinearAttention", e.need("q"), e.need("k"), e.need("v"), e.operand("state"), g, beta, domain=CONTRIB,
            outputs=2, q_num_heads=op.key_heads, kv_num_heads=op.value_heads, scale=float(op.scale),
            update_rule="gated_delta",
        )
    )  # fmt: skip


@emits(DeltaStep)
def delta_step(e: Emitter, op: DeltaStep, node: Node) -> None:
    e.bind(*one_step(e, op, node, *_gates(e, node)))


@emits(DeltaChunks)
def delta_chunks(e: Emitter, op: DeltaChunks, node: Node) -> None:
    e.bind(*in_chunks(e, op, node, *_gates(e, node)))


def _gates(e: Emitter, node: Node) -> tuple[onnx.Value, onnx.Value]:
    """Decay and beta: a masked token neither decays nor writes."""
    g, beta, mask = e.need("g"), e.need("beta"), node.input("mask")
    if mask is None:
        return g, beta
    kept, zero = _moved(e, _valid(e, mask, node.need("v"))), e.number(0)
    return e.op("Where", kept, g, zero, label="NoDecay"), e.op("Where", kept, beta, zero, label="NoWrite")


# The causal convolution


@emits(CausalConvWithState)
def causal_conv_with_state(e: Emitter, op: CausalConvWithState, node: Node) -> None:
    y, after = e.ops(
        "CausalConvWithState", _column(e, node), e.need("weight"), e.operand("bias"), e.need("state"),
        domain=CONTRIB, outputs=2,
    )  # fmt: skip
    _bind_step(e, node, y, after)


@emits(ConvStep)
def conv_step(e: Emitter, op: ConvStep, node: Node) -> None:
    channels, kernel = _sizes(node)
    line = e.op("Concat", e.need("state"), _column(e, node), axis=2, label="Line")
    y = e.op("Conv", line, e.need("weight"), e.operand("bias"), group=channels, kernel_shape=[kernel])
    _bind_step(e, node, y, e.op("Slice", line, e.ints(1), e.ints(kernel), e.ints(2), label="Newest"))


def _column(e: Emitter, node: Node) -> onnx.Value:
    """The one token as [batch, channels, 1]."""
    return e.op("Reshape", e.need("x"), e.ints(0, _sizes(node)[0], 1), label="Column")


def _bind_step(e: Emitter, node: Node, y: onnx.Value, after: onnx.Value) -> None:
    """The token's result, and the state, which a masked token leaves as it was."""
    mask = node.input("mask")
    if mask is not None:
        after = e.op("Where", _moved(e, _valid(e, mask, node.need("x"))), after, e.need("state"), label="Kept")
    e.bind(e.op("Reshape", y, e.ints(0, 1, _sizes(node)[0]), label="Row"), after)


@emits(ConvTokens)
def conv_tokens(e: Emitter, op: ConvTokens, node: Node) -> None:
    """Valid tokens move to the front of their row, behind the state; each takes its result back to its place."""
    channels, kernel = _sizes(node)
    x, state, mask, tokens = node.need("x"), e.operand("state"), node.input("mask"), e.need("x")
    if mask is not None:
        tokens = e.op("GatherND", tokens, _order(e, mask, x), batch_dims=1, label="ValidFirst")
    if state is None:
        line = e.op("Pad", tokens, e.ints(kernel - 1, 0), None, e.ints(1), label="Line")
    else:
        line = e.op("Concat", e.op("Transpose", state, perm=[0, 2, 1]), tokens, axis=1, label="Line")
    columns = e.op("Transpose", line, perm=[0, 2, 1], label="Columns")
    y = e.op("Conv", columns, e.need("weight"), e.operand("bias"), group=channels, kernel_shape=[kernel])
    y = e.op("Transpose", y, perm=[0, 2, 1], label="Rows")
    if mask is None:
        end = int(np.iinfo(np.int64).max)
        e.bind(y, e.op("Slice", columns, e.ints(1 - kernel), e.ints(end), e.ints(2), label="Newest"))
        return
    y = e.op("GatherND", y, _rank(e, mask, x), batch_dims=1, label="Back")
    last = e.op("GatherND", line, _last(e, mask, x, kernel - 1), batch_dims=1, label="Newest")
    e.bind(y, e.op("Transpose", last, perm=[0, 2, 1], label="StateAfter"))


def _sizes(node: Node) -> tuple[int, int]:
    """Channels and taps of a convolution."""
    state = node.outputs[1].shape
    return int(state[1]), int(state[2]) + 1


def _order(e: Emitter, mask: Value, x: Value) -> onnx.Value:
    """Which token stands where when the valid ones come first, in order: int64 [batch, sequence, 1]."""
    valid = _valid(e, mask, x)

    def make() -> onnx.Value:
        length = e.size(x, 1)
        places = e.op("Range", e.array(0, "int64"), e.op("Squeeze", length), e.array(1, "int64"))
        keys = e.op("Sub", e.op("Mul", valid, e.computed(length)), places, label="SortKeys")
        order = e.ops("TopK", keys, length, axis=-1, largest=1, sorted=1, outputs=2, label="Order")[1]
        return e.op("Unsqueeze", order, e.ints(-1))

    return e.shared(("order", id(valid)), make)


def _rank(e: Emitter, mask: Value, x: Value) -> onnx.Value:
    """Where each token stands in that order; a masked one where the valid one before it does: [batch, sequence, 1]."""
    valid = _valid(e, mask, x)

    def make() -> onnx.Value:
        count = e.op("CumSum", valid, e.array(1, "int64"), label="Count")
        rank = e.op("Max", e.op("Sub", count, e.array(1, "int64")), e.array(0, "int64"), label="Rank")
        return e.op("Unsqueeze", rank, e.ints(-1))

    return e.shared(("rank", id(valid)), make)


def _last(e: Emitter, mask: Value, x: Value, width: int) -> onnx.Value:
    """Places of each row's newest `width` inputs, the state standing before the tokens: int64 [batch, width, 1]."""
    valid = _valid(e, mask, x)

    def make() -> onnx.Value:
        count = e.op("ReduceSum", valid, e.ints(1), keepdims=1, label="ValidCount")
        places = e.op("Add", count, e.array(np.arange(width), "int64"), label="Places")
        return e.op("Unsqueeze", places, e.ints(-1))

    return e.shared(("last_inputs", id(valid), width), make)
