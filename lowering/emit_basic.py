"""Emitters of the operators that most targets run alike: tables, linear, norms, elementwise, layout."""

from __future__ import annotations

import numpy as np
import onnx_ir as onnx

from flowc.ir.core.elementwise import Binary, Function, Scale, Softcap, Unary
from flowc.ir.core.gather import Gather
from flowc.ir.core.layout import Concat, Reshape, Slice, Split, Transpose
from flowc.ir.core.linear import Linear
from flowc.ir.core.norm import Norm
from flowc.ir.graph import Node, Value
from flowc.lowering.emitter import CONTRIB, Emitter, emits


@emits(Gather)
def gather(e: Emitter, op: Gather, node: Node) -> None:
    e.bind(e.op("Gather", e.need("table"), e.need("ids"), axis=0))


@emits(Linear)
def linear(e: Emitter, op: Linear, node: Node) -> None:
    """The weight stays [out, in]: FusedMatMul transB where contrib operators are allowed, else Gemm transB on rows."""
    x, weight, bias = e.need("x"), e.need("weight"), e.operand("bias")
    if e.target.contrib:
        y = e.op("FusedMatMul", x, weight, domain=CONTRIB, transB=1)
        e.bind(y if bias is None else e.op("Add", y, bias))
        return
    value, out = node.need("x"), node.outputs[0].shape[-1]
    assert isinstance(out, int)
    if value.type.rank == 2:
        e.bind(e.op("Gemm", x, weight, bias, transB=1))
        return
    y = e.op("Gemm", flatten(e, value), weight, bias, transB=1)
    e.bind(e.op("Reshape", y, unflatten(e, node, out), label="Unrows"))


def flatten(e: Emitter, value: Value) -> onnx.Value:
    """A value [..., width] as rows [n, width], made once per graph."""
    x = e.get(value)
    return e.shared(("rows", id(x)), lambda: e.op("Reshape", x, e.ints(-1, int(value.shape[-1])), label="Rows"))


def unflatten(e: Emitter, node: Node, width: int) -> onnx.Value:
    """Target shape that turns rows [n, width] back into the leading dimensions of the node's operand x."""
    value = node.need("x")
    lead = value.shape[:-1]
    if sum(isinstance(d, str) for d in lead) <= 1:
        return e.ints(*[d if isinstance(d, int) else -1 for d in lead], width)
    # Sizes of one name are equal all over a graph, so one Shape serves every layer.
    tokens = e.graph.inputs[0]
    like = tokens if tokens.shape[: len(lead)] == lead else value
    return e.shared(("unflatten", lead, width), lambda: e.sizes(like, range(len(lead)), width))


@emits(Norm)
def norm(e: Emitter, op: Norm, node: Node) -> None:
    """RMSNormalization (opset 23) or LayerNormalization; groups of channels through a reshape."""
    value = node.need("x")
    x, width = e.need("x"), int(value.shape[-1])
    size = width // op.groups
    gain, bias = e.operand("gain"), e.operand("bias")
    if gain is None:
        gain = e.array(np.ones(size, np.float32))
    elif op.offset:
        gain = e.op("Add", gain, e.array(np.float32(op.offset)), label="Offset")
    if op.groups > 1:
        x = e.op("Reshape", x, e.ints(*[0] * (value.type.rank - 1), op.groups, size), label="Groups")
    if op.kind == "rms":
        y = e.op("RMSNormalization", x, gain, axis=-1, epsilon=float(op.eps))
        if bias is not None:
            y = e.op("Add", y, bias)
    else:
        y = e.op("LayerNormalization", x, gain, bias, axis=-1, epsilon=float(op.eps))
    if op.groups > 1:
        y = e.op("Reshape", y, e.ints(*[0] * (value.type.rank - 1), width), label="Ungroups")
    e.bind(y)


def unary(e: Emitter, function: Function, x: onnx.Value) -> onnx.Value:
    """The ONNX form of an elementwise function that onnxruntime fuses or has a kernel for."""
    match function:
        case "silu":
            return e.op("Mul", x, e.op("Sigmoid", x))
        case "gelu":
            return e.op("Gelu", x, approximate="none")
        case "gelu_tanh":
            return e.op("Gelu", x, approximate="tanh")
        case "quick_gelu":
            return e.op("Mul", x, e.op("Sigmoid", e.op("Mul", x, e.array(np.float32(1.702)))))
        case "relu" | "tanh" | "sigmoid" | "softplus" | "exp" | "neg":
            return e.op(function.capitalize(), x)


@emits(Unary)
def elementwise(e: Emitter, op: Unary, node: Node) -> None:
    e.bind(unary(e, op.function, e.need("x")))


@emits(Binary)
def binary(e: Emitter, op: Binary, node: Node) -> None:
    e.bind(e.op(op.function.capitalize(), e.need("a"), e.need("b")))


@emits(Scale)
def scale(e: Emitter, op: Scale, node: Node) -> None:
    e.bind(e.op("Mul", e.need("x"), e.array(np.float32(op.factor))))


@emits(Softcap)
def softcap(e: Emitter, op: Softcap, node: Node) -> None:
    cap = e.array(np.float32(op.cap))
    e.bind(e.op("Mul", e.op("Tanh", e.op("Div", e.need("x"), cap)), cap))


@emits(Split)
def split(e: Emitter, op: Split, node: Node) -> None:
    e.bind(*e.ops("Split", e.need("x"), e.ints(*op.sizes), axis=-1, outputs=len(op.sizes)))


@emits(Concat)
def concat(e: Emitter, op: Concat, node: Node) -> None:
    e.bind(e.op("Concat", *[e.get(v) for v in node.inputs if v is not None], axis=op.axis))


@emits(Slice)
def slice_(e: Emitter, op: Slice, node: Node) -> None:
    stop = op.stop if op.stop is not None else np.iinfo(np.int64).max
    e.bind(e.op("Slice", e.need("x"), e.ints(op.start), e.ints(int(stop)), e.ints(op.axis)))


@emits(Reshape)
def reshape(e: Emitter, op: Reshape, node: Node) -> None:
    """A symbol that keeps its axis is copied (0); one that moves is recomputed (-1)."""
    value = node.need("x")
    symbols = [d for d in op.shape if isinstance(d, str)]
    shape = [d if isinstance(d, int) else (-1 if len(symbols) == 1 else 0) for d in op.shape]
    moved = [i for i, d in enumerate(op.shape) if isinstance(d, str) and (i >= value.type.rank or value.shape[i] != d)]
    if len(symbols) > 1 and moved:
        shape[moved[0]] = -1
    e.bind(e.op("Reshape", e.need("x"), e.ints(*shape)))


@emits(Transpose)
def transpose(e: Emitter, op: Transpose, node: Node) -> None:
    e.bind(e.op("Transpose", e.need("x"), perm=list(op.axes)))
