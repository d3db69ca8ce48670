"""Emitters of mixtures of experts."""

from __future__ import annotations

from typing import Any

import numpy as np

from flowc.ir.graph import Node
from flowc.ir.ops.experts import Experts
from flowc.lowering.emit_basic import unary, unflatten
from flowc.lowering.emitter import CONTRIB, Emitter, emits


@emits(Experts)
def experts(e: Emitter, op: Experts, node: Node) -> None:
    """The runtime's MoE where it knows the activation, else standard operators on turned weights.

    With one new token a row, the chosen experts' matrices are gathered; else every expert does every token, and the
    weights of those that were not chosen are 0.
    """
    if not op.turned and op.activation in e.target.expert_activations:
        e.bind(_fused(e, op, node))
        return
    x = node.inputs[0]
    assert x is not None
    e.bind(_chosen(e, op, node) if x.shape[1] == 1 else _all(e, op, node))


def _rows(e: Emitter, name: str) -> Any:
    """An operand [batch, sequence, n] as [tokens, n]."""
    value = e.node.input(name)
    assert value is not None
    return e.op("Reshape", e.get(value), e.ints(-1, int(value.shape[-1])), label=f"Rows_{name}")


def _fused(e: Emitter, op: Experts, node: Node) -> Any:
    """`swiglu` with alpha 1 and no limit is silu(gate) * up over alternating rows."""
    y = e.op(
        "MoE", _rows(e, "x"), _rows(e, "scores"), e.need("gate_up"), None, e.need("down"), domain=CONTRIB,
        k=op.top, activation_type="swiglu", swiglu_fusion=1, activation_alpha=1.0, activation_beta=0.0,
        normalize_routing_weights=int(op.renormalise),
    )  # fmt: skip
    return e.op("Reshape", y, unflatten(e, node, int(node.outputs[0].shape[-1])), label="Unrows")


def _turned(e: Emitter, op: Experts, name: str) -> Any:
    """An operand [experts, in, out]; a build without the pass that stores it so turns it at every load."""
    return e.need(name) if op.turned else e.op("Transpose", e.need(name), perm=[0, 2, 1], label=f"Turned_{name}")


def _routing(e: Emitter, op: Experts) -> tuple[Any, Any]:
    """Weights and indices of the chosen experts, both [tokens, top]."""
    weights, chosen = e.op("TopK", e.op("Softmax", _rows(e, "scores"), axis=-1), e.ints(op.top), axis=-1, outputs=2)
    if op.renormalise:
        weights = e.op("Div", weights, e.op("ReduceSum", weights, e.ints(-1), keepdims=1))
    return weights, chosen


def _gated(e: Emitter, op: Experts, both: Any, lead: tuple[int, ...], width: int) -> Any:
    """activation(gate) * up of columns that alternate: [.., 2 * width] -> [.., width]."""
    pairs = e.op("Reshape", both, e.ints(*lead, width, 2), label="Pairs")
    gate, up = e.op("Split", pairs, axis=-1, num_outputs=2, outputs=2)
    h = e.op("Mul", unary(e, op.activation, gate), up)
    return e.op("Reshape", h, e.ints(*lead, width), label="Gated")


def _chosen(e: Emitter, op: Experts, node: Node) -> Any:
    down = node.inputs[3]
    assert down is not None
    weights, chosen = _routing(e, op)
    width = int(down.shape[1 if op.turned else 2])
    x = e.op("Unsqueeze", _rows(e, "x"), e.ints(1, 2), label="Token")
    both = e.op("MatMul", x, e.op("Gather", _turned(e, op, "gate_up"), chosen, axis=0))
    h = _gated(e, op, both, (0, 0, 0), width)
    y = e.op("MatMul", h, e.op("Gather", _turned(e, op, "down"), chosen, axis=0))
    weighted = e.op("Mul", y, e.op("Unsqueeze", weights, e.ints(2, 3)))
    summed = e.op("ReduceSum", weighted, e.ints(1, 2), keepdims=0)
    return e.op("Reshape", summed, unflatten(e, node, int(node.outputs[0].shape[-1])), label="Unrows")


def _all(e: Emitter, op: Experts, node: Node) -> Any:
    scores, down = node.inputs[1], node.inputs[3]
    assert scores is not None and down is not None
    weights, chosen = _routing(e, op)
    width = int(down.shape[1 if op.turned else 2])
    rows = _rows(e, "scores")
    zeros = e.op("Mul", rows, e.array(np.float32(0)), label="Zeros")
    dense = e.op("ScatterElements", zeros, chosen, weights, axis=-1)
    x = e.op("Unsqueeze", _rows(e, "x"), e.ints(0), label="EveryExpert")
    h = _gated(e, op, e.op("MatMul", x, _turned(e, op, "gate_up")), (0, 0), width)
    y = e.op("MatMul", h, _turned(e, op, "down"))
    by_expert = e.op("Unsqueeze", e.op("Transpose", dense, perm=[1, 0]), e.ints(2))
    summed = e.op("ReduceSum", e.op("Mul", y, by_expert), e.ints(0), keepdims=0)
    return e.op("Reshape", summed, unflatten(e, node, int(node.outputs[0].shape[-1])), label="Unrows")
