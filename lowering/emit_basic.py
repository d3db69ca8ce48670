"""Emitters of the operators that most targets run alike: tables, linear, norms, elementwise, layout."""

from __future__ import annotations

import numpy as np
import onnx_ir as onnx

from flowc.ir.core.cast import Cast
from flowc.ir.core.elementwise import LEAK, Binary, Function, Scale, Softcap, Unary
from flowc.ir.core.gather import Gather
from flowc.ir.core.layout import Concat, Reshape, Slice, Split, Transpose
from flowc.ir.core.norm import Norm
from flowc.ir.graph import Node, Value
from flowc.ir.kernel.matrix import FusedMatMul, Gemm
from flowc.ir.kernel.norms import LayerNormalization, RmsNormalization
from flowc.ir.kernel.skip_norm import SkipRmsNormalization
from flowc.lowering.emitter import CONTRIB, DTYPES, Emitter, emits


@emits(Gather)
def gather(e: Emitter, op: Gather, node: Node) -> None:
    table, ids = node.input("table"), node.input("ids")
    assert table is not None and ids is not None
    found = e.get(ids)
    if ids in e.graph.inputs:
        # ONNX counts negative ids from the end of the table; one that the table does not have stops the run.
        size = table.shape[0]
        rows = e.array(size if isinstance(size, int) else np.iinfo(ids.dtype).max, ids.dtype)
        negative = e.shared(("negative", id(found)), lambda: e.op("Less", found, e.array(0, ids.dtype)))
        found = e.op("Where", negative, rows, found, label="NoNegative")
    e.bind(e.op("Gather", e.need("table"), found, axis=0))


@emits(FusedMatMul)
def fused_mat_mul(e: Emitter, op: FusedMatMul, node: Node) -> None:
    y, bias = e.op("FusedMatMul", e.need("x"), e.need("weight"), domain=CONTRIB, transB=1), e.operand("bias")
    e.bind(y if bias is None else e.op("Add", y, bias))


@emits(Gemm)
def gemm(e: Emitter, op: Gemm, node: Node) -> None:
    value, weight, bias, out = node.need("x"), e.need("weight"), e.operand("bias"), node.outputs[0].shape[-1]
    assert isinstance(out, int)
    if value.type.rank == 2:
        e.bind(e.op("Gemm", e.get(value), weight, bias, transB=1))
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


@emits(RmsNormalization)
def rms_normalization(e: Emitter, op: RmsNormalization, node: Node) -> None:
    gain, bias = e.need("gain"), e.operand("bias")
    y = e.op("RMSNormalization", _in_groups(e, op, node), gain, axis=-1, epsilon=float(op.eps))
    e.bind(_out_of_groups(e, op, node, y if bias is None else e.op("Add", y, bias)))


@emits(LayerNormalization)
def layer_normalization(e: Emitter, op: LayerNormalization, node: Node) -> None:
    gain, bias = e.need("gain"), e.operand("bias")
    y = e.op("LayerNormalization", _in_groups(e, op, node), gain, bias, axis=-1, epsilon=float(op.eps))
    e.bind(_out_of_groups(e, op, node, y))


@emits(SkipRmsNormalization)
def skip_rms_normalization(e: Emitter, op: SkipRmsNormalization, node: Node) -> None:
    operands = (e.need("x"), e.need("skip"), e.need("gain"))
    y, _, _, total = e.ops("SkipSimplifiedLayerNormalization", *operands, domain=CONTRIB, outputs=4, epsilon=op.eps)
    e.bind(y, total)


def _in_groups(e: Emitter, op: Norm, node: Node) -> onnx.Value:
    """X [..., groups * width] as [..., groups, width]."""
    x, lead = node.need("x"), node.need("x").type.rank - 1
    shape = (*[0] * lead, op.groups, int(x.shape[-1]) // op.groups)
    return e.get(x) if op.groups == 1 else e.op("Reshape", e.get(x), e.ints(*shape), label="Groups")


def _out_of_groups(e: Emitter, op: Norm, node: Node, y: onnx.Value) -> onnx.Value:
    x, lead = node.need("x"), node.need("x").type.rank - 1
    return y if op.groups == 1 else e.op("Reshape", y, e.ints(*[0] * lead, int(x.shape[-1])), label="Ungroups")


def unary(e: Emitter, function: Function, x: onnx.Value) -> onnx.Value:
    """The ONNX form of an elementwise function that onnxruntime fuses or has a kernel for."""
    match function:
        case "silu":
            return e.op("Mul", x, e.op("Sigmoid", x))
        case "gelu":
            return e.op("Gelu", x, approximate="none")
        case "gelu_tanh":
            return e.op("Gelu", x, approximate="tanh")
        case "gelu_10":
            return e.op("Clip", e.op("Gelu", x, approximate="none"), e.number(-10), e.number(10))
        case "quick_gelu":
            return e.op("Mul", x, e.op("Sigmoid", e.op("Mul", x, e.number(1.702))))
        case "relu2":
            positive = e.op("Relu", x)
            return e.op("Mul", positive, positive)
        case "leaky_relu":
            return e.op("LeakyRelu", x, alpha=LEAK)
        case "mish":
            return e.op("Mul", x, e.op("Tanh", e.op("Softplus", x)))
        case "linear":
            return e.op("Identity", x)
        case "relu" | "tanh" | "sigmoid" | "softplus" | "exp" | "neg":
            return e.op(function.capitalize(), x)


@emits(Unary)
def elementwise(e: Emitter, op: Unary, node: Node) -> None:
    e.bind(unary(e, op.function, e.need("x")))


@emits(Binary)
def binary(e: Emitter, op: Binary, node: Node) -> None:
    e.bind(e.op(op.function.capitalize(), e.need("a"), e.need("b")))


@emits(Cast)
def cast(e: Emitter, op: Cast, node: Node) -> None:
    e.bind(e.op("Cast", e.need("x"), to=int(DTYPES[op.to])))


@emits(Scale)
def scale(e: Emitter, op: Scale, node: Node) -> None:
    e.bind(e.op("Mul", e.need("x"), e.number(op.factor)))


@emits(Softcap)
def softcap(e: Emitter, op: Softcap, node: Node) -> None:
    cap = e.number(op.cap)
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
