"""Emitters of what encoders add: poolers, learned positions, relative bias."""

from __future__ import annotations

import numpy as np
import onnx_ir as onnx

from flowc.ir.core.pool import L2Normalize, Pool
from flowc.ir.core.relative_bias import RelativeBias
from flowc.ir.core.token_positions import AllOnes, Columns, PositionsFromIds
from flowc.ir.graph import Node, Value
from flowc.lowering.emit_attention import greatest
from flowc.lowering.emitter import DTYPES, Emitter, emits


@emits(Pool)
def pool(e: Emitter, op: Pool, node: Node) -> None:
    x, mask = node.input("x"), node.input("mask")
    assert x is not None
    match op.kind:
        case "mean" | "mean_sqrt_len":
            e.bind(_mean(e, op, x, mask))
        case "max":
            e.bind(e.op("ReduceMax", _only_valid(e, x, mask), e.ints(1), keepdims=0))
        case "cls" if mask is None:
            e.bind(e.op("Gather", e.get(x), e.array(0, "int64"), axis=1))
        case "last" if mask is None:
            e.bind(e.op("Gather", e.get(x), e.array(-1, "int64"), axis=1))
        case _:
            assert mask is not None
            index = greatest(e, e.get(mask), last=op.kind == "last")
            if op.kind == "last":  # where nothing is valid every column is the greatest: the first one then
                index = e.op("Mul", index, e.op("ReduceMax", e.get(mask), e.ints(1), keepdims=1))
            e.bind(e.op("GatherND", e.get(x), index, batch_dims=1))


def _mean(e: Emitter, op: Pool, x: Value, mask: Value | None) -> onnx.Value:
    if mask is None:
        if op.kind == "mean":
            return e.op("ReduceMean", e.get(x), e.ints(1), keepdims=0)
        count = e.op("Cast", e.size(x, 1), to=int(DTYPES[x.dtype]))
        total = e.op("ReduceSum", e.get(x), e.ints(1), keepdims=0)
    else:
        weights = e.op("Cast", e.get(mask), to=int(DTYPES[x.dtype]))
        total = e.op("Squeeze", e.op("MatMul", e.op("Unsqueeze", weights, e.ints(1)), e.get(x)), e.ints(1))
        count = e.op("Max", e.op("ReduceSum", weights, e.ints(1), keepdims=1), e.array(np.ones((), x.dtype)))
    return e.op("Div", total, count if op.kind == "mean" else e.op("Sqrt", count))


def _only_valid(e: Emitter, x: Value, mask: Value | None) -> onnx.Value:
    """X with padding at the lowest number; a row of padding keeps its first column."""
    if mask is None:
        return e.get(x)
    columns = e.op("Range", e.array(0, "int64"), e.op("Squeeze", e.size(mask, 1)), e.array(1, "int64"))
    first = e.op("Equal", columns, e.array(0, "int64"))
    empty = e.op("Equal", e.op("ReduceMax", e.get(mask), e.ints(1), keepdims=1), e.array(0, "int64"))
    some = e.op("Or", e.op("Cast", e.get(mask), to=int(DTYPES["bool"])), e.op("And", first, empty))
    lowest = e.array(np.asarray(np.finfo(np.dtype(x.dtype)).min, x.dtype))
    return e.op("Where", e.op("Unsqueeze", some, e.ints(2)), e.get(x), lowest, label="OnlyValid")


@emits(L2Normalize)
def l2_normalize(e: Emitter, op: L2Normalize, node: Node) -> None:
    x = e.need("x")
    length = e.op("ReduceL2", x, e.ints(-1), keepdims=1)
    e.bind(e.op("Div", x, e.op("Max", length, e.array(np.float32(op.eps)))))


@emits(Columns)
def columns(e: Emitter, op: Columns, node: Node) -> None:
    new = node.input("new")
    assert new is not None
    e.bind(e.op("Unsqueeze", _range(e, new), e.ints(0)))


def _range(e: Emitter, new: Value) -> onnx.Value:
    """0 .. sequence - 1: int64 [sequence]."""
    return e.op("Range", e.array(0, "int64"), e.op("Squeeze", e.size(new, 1)), e.array(1, "int64"))


@emits(PositionsFromIds)
def positions_from_ids(e: Emitter, op: PositionsFromIds, node: Node) -> None:
    pad = e.array(op.pad, "int64")
    real = e.op("Cast", e.op("Not", e.op("Equal", e.need("ids"), pad)), to=int(DTYPES["int64"]), label="Real")
    counted = e.op("Mul", e.op("CumSum", real, e.array(1, "int64")), real)
    e.bind(e.op("Add", counted, pad))


@emits(AllOnes)
def all_ones(e: Emitter, op: AllOnes, node: Node) -> None:
    new = node.input("new")
    assert new is not None
    e.bind(e.op("Expand", e.ints(1), e.sizes(new, (0, 1))))


@emits(RelativeBias)
def relative_bias(e: Emitter, op: RelativeBias, node: Node) -> None:
    """Buckets are looked up: those of distances up to `max_distance` are a constant, all others are its ends."""
    new = node.input("new")
    assert new is not None
    reach = op.max_distance
    buckets = e.array(op.bucket(np.arange(-reach, reach + 1, dtype=np.int64)))
    at_key = _range(e, new)
    distance = e.op("Sub", at_key, e.op("Unsqueeze", at_key, e.ints(1)), label="Distance")
    near = e.op("Clip", distance, e.array(-reach, "int64"), e.array(reach, "int64"))
    rows = e.op("Gather", buckets, e.op("Add", near, e.array(reach, "int64")), label="Buckets")
    bias = e.op("Transpose", e.op("Gather", e.need("table"), rows), perm=[2, 0, 1])
    e.bind(e.op("Unsqueeze", bias, e.ints(0)))
