"""What hides keys becomes an attribute of the kernel, or one mask per graph.

    %a = attention(%q0, …, %attention_mask) {causal, window 4096}     %m = attention_mask(%ids, %attention_mask)
    %b = attention(%q1, …, %attention_mask) {causal, window 4096}  =>      {causal, window 4096}
                                                                      %a = attention(%q0, …, mask = %m)
                                                                      %b = attention(%q1, …, mask = %m)

A single new token sees every column, so a decode graph has no causal part; a window as wide as the context hides
nothing; and without a padding mask `causal` alone is left to the operator.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

from flowc.ir.core.attention import Attention, AttentionMask
from flowc.ir.core.rope import Rope
from flowc.ir.graph import Graph, Node, Rewriter, Value, rewrite
from flowc.ir.visibility import EVERYTHING
from flowc.passes.audit import Audit, Context, place


def fold_masks(graph: Graph, context: Context, audit: Audit) -> Graph:
    """Give every attention the least mask that its facts need, made once per graph."""
    masks: dict[Hashable, Value] = {}
    bound = _longest(graph)

    def rule(node: Node, rewriter: Rewriter) -> tuple[Value, ...] | None:
        op = node.op
        if not isinstance(op, Attention) or node.input("mask") is not None:
            return None
        if op.visibility.unlimited and node.input("key_mask") is None:
            return None
        q, k, past, key_mask = node.need("q"), node.need("k"), node.input("past_key"), node.input("key_mask")
        seen = op.visibility.within(bound)
        seen = replace(seen, causal=seen.causal and q.shape[1] != 1)
        if seen.causal and past is None and context.assume == "right-padding":
            key_mask = None  # padding comes after every token that could see it
        if key_mask is None and seen.left is None and seen.right is None:
            if seen == op.visibility and node.input("key_mask") is None:
                return None
            audit.fired.append(place(node))
            return rewriter.remake(node, replace(op, visibility=seen), key_mask=None)
        audit.fired.append(place(node))
        new = graph.over_tokens_of(q)
        # Without a padding mask the lengths alone decide, and those of one name are equal in all layers.
        lengths = key_mask or (past and past.shape[2], k.shape[1])
        facts: Hashable = (seen, new.shape[1], lengths)
        if facts not in masks:
            made = AttentionMask(seen)
            over = made.arrange(mask=key_mask) if key_mask is not None else made.arrange(past=past, keys=k)
            masks[facts] = rewriter.emit(made, made.arrange(over, new=new), node, "mask")[0]
        return rewriter.remake(node, replace(op, visibility=EVERYTHING), key_mask=None, mask=masks[facts])

    return rewrite(graph, rule)


def _longest(graph: Graph) -> int | None:
    """How many positions the graph can meet before a rope table stops it; None when nothing does."""
    rows: list[int] = []
    for node in graph.nodes:
        table = node.weight("cos") if isinstance(node.op, Rope) and node.input("position_ids") is not None else None
        if table is not None:
            rows.append(table.shape[0])
    return min(rows, default=None)
