"""Experts' weights are stored as the target multiplies by them.

    %y = expert_loop(%x, %scores, w, v)   =>   %y = expert_loop(%x, %scores, transpose(w), transpose(v)) {transposed}

The loop multiplies by MatMul, which wants [experts, in, out] and would copy the weights at every load to get it.
"""

from __future__ import annotations

from dataclasses import replace

from flowc.ir.graph import Graph, Node, Rewriter, Value, constant, rewrite
from flowc.ir.kernel.experts import ExpertLoop
from flowc.ir.weights.expressions import Transpose
from flowc.passes.audit import Audit, Context, place


def transpose_experts(graph: Graph, context: Context, audit: Audit) -> Graph:
    """Exchange the last two axes of the weights of every mixture that runs as a loop."""

    def rule(node: Node, rewriter: Rewriter) -> tuple[Value, ...] | None:
        op = node.op
        if not isinstance(op, ExpertLoop) or op.transposed:
            return None
        transposed: dict[str, Value] = {}
        for operand in ("gate_up", "down"):
            weight = node.weight(operand)
            if weight is None:
                audit.missed.append((place(node), "an expert's weights are computed"))
                return None
            transposed[operand] = constant(Transpose(weight, (0, 2, 1)))
        audit.fired.append(place(node))
        return rewriter.remake(node, replace(op, transposed=True), **transposed)

    return rewrite(graph, rule)
