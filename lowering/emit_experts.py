"""Emitters of mixtures of experts."""

from __future__ import annotations

import onnx_ir as onnx

from flowc.ir.graph import Node
from flowc.ir.kernel.experts import ExpertLoop, MoE
from flowc.lowering.emit_basic import flatten, unary, unflatten
from flowc.lowering.emitter import CONTRIB, DTYPES, Emitter, emits


def _rows(e: Emitter, name: str) -> onnx.Value:
    """An operand [batch, sequence, n] as [tokens, n]."""
    return flatten(e, e.node.need(name))


@emits(MoE)
def moe(e: Emitter, op: MoE, node: Node) -> None:
    """`swiglu` with alpha 1 and no limit is silu(gate) * up over alternating rows."""
    y = e.op(
        "MoE", _rows(e, "x"), _rows(e, "scores"), e.need("gate_up"), None, e.need("down"), domain=CONTRIB,
        k=op.top, activation_type="swiglu", swiglu_fusion=1, activation_alpha=1.0, activation_beta=0.0,
        normalize_routing_weights=int(op.renormalise),
    )  # fmt: skip
    e.bind(e.op("Reshape", y, unflatten(e, node, int(node.outputs[0].shape[-1])), label="Unrows"))


def _turned(e: Emitter, op: ExpertLoop, name: str) -> onnx.Value:
    """An operand [experts, in, out]; a build without the pass that stores it so turns it at every load."""
    return e.need(name) if op.transposed else e.op("Transpose", e.need(name), perm=[0, 2, 1], label=f"Turned_{name}")


def _routing(e: Emitter, op: ExpertLoop) -> tuple[onnx.Value, onnx.Value]:
    """Weights and indices of the chosen experts, both [tokens, top]."""
    scores = _single(e, _rows(e, "scores"))
    weights, chosen = e.ops("TopK", e.op("Softmax", scores, axis=-1), e.ints(op.top), axis=-1, outputs=2)
    if op.renormalise:
        weights = e.op("Div", weights, e.op("ReduceSum", weights, e.ints(-1), keepdims=1))
    return weights, chosen


def _gated(e: Emitter, op: ExpertLoop, both: onnx.Value, lead: tuple[int, ...], width: int) -> onnx.Value:
    """activation(gate) * up of columns that alternate: [.., 2 * width] -> [.., width]."""
    pairs = e.op("Reshape", both, e.ints(*lead, width, 2), label="Pairs")
    gate, up = e.ops("Split", pairs, axis=-1, num_outputs=2, outputs=2)
    h = e.op("Mul", unary(e, op.activation, gate), up)
    return e.op("Reshape", h, e.ints(*lead, width), label="Gated")


def _zeros_like(e: Emitter, x: onnx.Value) -> onnx.Value:
    return e.op("ConstantOfShape", e.op("Shape", x), label="Zeros")


def _single(e: Emitter, x: onnx.Value) -> onnx.Value:
    """Half-precision numbers as float32; onnxruntime has no ScatterND that adds others on the CPU."""
    half = e.node.outputs[0].dtype != "float32"
    return e.op("Cast", x, to=int(DTYPES["float32"]), label="Single") if half else x


@emits(ExpertLoop)
def expert_loop(e: Emitter, op: ExpertLoop, node: Node) -> None:
    """A loop over the experts that some token chose: its tokens' rows, its MLP, added to the result."""
    down = node.need("down")
    weights, chosen = _routing(e, op)
    width, hidden = int(down.shape[1 if op.transposed else 2]), int(node.outputs[0].shape[-1])
    x = _rows(e, "x")
    zeros = _zeros_like(e, _rows(e, "scores"))
    # [experts, tokens]: the weight of each token for each expert, 0 where it did not choose it
    routing = e.op("Transpose", e.op("ScatterElements", zeros, chosen, weights, axis=-1), perm=[1, 0])
    needed = e.op("Unique", chosen, sorted=1, label="ChosenExperts")
    gate_up, out = _turned(e, op, "gate_up"), _turned(e, op, "down")
    step, going = e.local("step", "int64", ()), e.local("going", "bool", ())
    total = e.local("total", "float32", ("tokens", hidden))

    def expert() -> list[onnx.Value]:
        which = e.op("Gather", needed, step, axis=0)
        weight = e.op("Gather", routing, which, axis=0)
        rows = e.op("Squeeze", e.op("NonZero", weight), e.ints(0), label="Tokens")
        both = e.op("MatMul", e.op("Gather", x, rows, axis=0), e.op("Gather", gate_up, which, axis=0))
        h = _gated(e, op, both, (-1,), width)
        y = _single(e, e.op("MatMul", h, e.op("Gather", out, which, axis=0)))
        weighted = e.op("Mul", y, e.op("Unsqueeze", e.op("Gather", weight, rows, axis=0), e.ints(1)))
        at = e.op("Unsqueeze", rows, e.ints(1), label="At")
        added = e.op("ScatterND", total, at, weighted, reduction="add")
        added.type, added.shape = total.type, total.shape
        still = e.op("Identity", going, label="Going")
        still.type, still.shape = going.type, going.shape
        return [still, added]

    count = e.op("Squeeze", e.op("Shape", needed))
    summed = e.op("Loop", count, e.array(True), _zeros_like(e, x), body=e.body("expert", (step, going, total), expert))
    dtype = node.outputs[0].dtype
    if dtype != "float32":
        summed = e.op("Cast", summed, to=int(DTYPES[dtype]), label="Rounded")
    e.bind(e.op("Reshape", summed, unflatten(e, node, hidden), label="Unrows"))
