"""Rope angles become rows of constant tables, cut to the context length of the build.

    %cos, %sin = rope_angles(%ids) {facts}      (no trigonometry left)
    %q = rope(%x, %cos, %sin)               =>  %q = rope(%x, rope_cos<facts; 8192>, rope_sin<facts; 8192>, %ids)

longrope keeps its two tables in one, the short rows above the long ones, and picks at run time:

                                                %rows = switch_rows(%ids) {length = 4096, rows = 131072}
                                                %q = rope(%x, rope_cos<…>, rope_sin<…>, %rows)

A position beyond the table stops the run with an error, in onnxruntime's RotaryEmbedding and Gather alike.
"""

from __future__ import annotations

from functools import partial

import numpy as np

from flowc.ir.core.gather import Gather
from flowc.ir.core.rope import Rope, RopeAngles, SwitchRows
from flowc.ir.graph import Graph, Node, Rewriter, Value, constant, rewrite
from flowc.ir.op import Array
from flowc.ir.rope import RopeFacts
from flowc.ir.weights.expressions import Constant, Generated
from flowc.passes.audit import Audit, Context, place

LARGEST = 2**30
"""Bytes of a table beyond which the angles stay what they are."""


def fold_rope(graph: Graph, context: Context, audit: Audit) -> Graph:
    """Replace angles by tables; equal ropes get equal tables, in every graph of the build."""
    folded: dict[Value, tuple[Value, Value, Value]] = {}
    gathered: dict[Value, Value] = {}

    def rule(node: Node, rewriter: Rewriter) -> tuple[Value, ...] | None:
        if isinstance(node.op, RopeAngles):
            return _fold_angles(node, node.op, rewriter)
        if isinstance(node.op, Rope) and node.need("cos") in folded:
            cos, sin, rows = folded[node.need("cos")]
            return rewriter.remake(node, node.op, cos=cos, sin=sin, position_ids=rows)
        if any(v in folded for v in node.inputs):
            # A reader other than rope takes the rows themselves.
            inputs = tuple(_rows_of(v, node, rewriter) for v in node.inputs)
            return rewriter.remake(node, node.op, inputs)
        return None

    def _rows_of(value: Value | None, node: Node, rewriter: Rewriter) -> Value | None:
        if value is None or value not in folded:
            return value
        if value not in gathered:
            table, _, rows = folded[value]
            gathered[value] = rewriter.emit(Gather(), (table, rows), node, "angles")[0]
        return gathered[value]

    def _fold_angles(node: Node, op: RopeAngles, rewriter: Rewriter) -> tuple[Value, ...] | None:
        ids, length = node.need("position_ids"), context.context_length
        if isinstance(ids.weight, Constant):
            audit.fired.append(place(node))
            return tuple(constant(Constant(a, "rope_row")) for a in op.reference(ids.weight.values))
        if length is None:
            audit.missed.append((place(node), "no context length is known: `context_length` in `model:`, or --context"))
            return None
        if length * op.facts.dim * 2 > LARGEST:
            audit.missed.append((place(node), f"a table of {length} positions is larger than {LARGEST >> 20} MiB"))
            return None
        if any(o.value in node.outputs for o in graph.outputs):
            audit.missed.append((place(node), "the angles themselves are an output"))
            return None
        audit.fired.append(place(node))
        stacked = op.facts.switches and length > op.facts.original_length
        rows = rewriter.emit(SwitchRows(op.facts.original_length, length), (ids,), node, "rows")[0] if stacked else ids
        cos, sin = (constant(table(op.facts, length, which)) for which in ("cos", "sin"))
        folded[node.outputs[0]], folded[node.outputs[1]] = (cos, sin, rows), (sin, cos, rows)
        return node.outputs

    return rewrite(graph, rule)


def table(facts: RopeFacts, length: int, which: str) -> Generated:
    """Cosines or sines of positions 0 .. length - 1: [length, dim / 2].

    For longrope, where the context reaches past the original length, the short rows and then the long ones:
    [2 * length, dim / 2].
    """
    rows = 2 * length if facts.switches and length > facts.original_length else length
    return Generated(f"rope_{which}<{facts!r}; {length}>", (rows, facts.pairs), partial(_make, facts, length, which))


def _make(facts: RopeFacts, length: int, which: str) -> Array:
    positions = np.arange(length, dtype=np.int64)
    both = (False, True) if facts.switches and length > facts.original_length else (False,)
    return np.concatenate([facts.cos_sin(positions, long)[which == "sin"] for long in both])
