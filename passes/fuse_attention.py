"""Attention becomes the operator that pays on the target, for the graph's phase and for what the build assumes.

    (decode, no assumption: the past may be written in place, the mask is added)
    %a = attention(%q, %k, …, %mask) {window 4}    =>  %b = mask_bias(attention_mask(%ids, %mask) {window 4})
                                                       %a = group_query_attention(%q, %k, …, %mask, bias = %b)
    (--assume right-padding: rope and mask inside)
    %q = rope(%q0, cos, sin, %ids); %k = …         =>  %a = group_query_attention(%q0, %k0, …, %mask, cos, sin)
    %a = attention(%q, %k, …, %mask)                       {compact}

What each target wants is a table in `flowc/targets/`. Where the operator's limits forbid it, ONNX Attention stays.
A compact cache is one for all layers: unless every reader of the mask can go along, the graph keeps aligned columns
and the kernel that suits them.
"""

from __future__ import annotations

from dataclasses import replace

from flowc.ir.core.attention import Attention, AttentionMask
from flowc.ir.core.positions import Positions
from flowc.ir.core.rope import Rope
from flowc.ir.graph import Graph, Node, Rewriter, Value, rewrite
from flowc.ir.kernel.group_query import GroupQueryAttention, MaskBias
from flowc.ir.types import PAST
from flowc.ir.visibility import Visibility
from flowc.passes.audit import Audit, Context, place
from flowc.targets.target import AttentionKernel, Target


def fuse_attention(graph: Graph, context: Context, audit: Audit) -> Graph:
    """Replace cached attention by the target's kernel; say in the graph's facts how its cache may be held."""
    kernel = context.target.kernel(graph.phase, context.assume)
    layers = [n for n in graph.nodes if isinstance(n.op, Attention) and n.op.cache]
    if kernel == "attention" or not layers:
        return graph
    reasons = {n: _refusal(n, context.target) for n in layers}
    together = why_not_compact(graph, context) if kernel == "fused" else ""
    if together:
        audit.missed += [(place(n), reasons[n] or together) for n in layers]
        kernel = context.target.kernel(graph.phase, "none")
        if kernel == "attention":
            return graph
    else:
        audit.missed += [(place(n), why) for n, why in reasons.items() if why]
        audit.fired += [place(n) for n, why in reasons.items() if not why]
    chosen = {n.outputs[0] for n, why in reasons.items() if not why}
    choice = _Choice(graph, chosen, kernel, context.target)
    facts = dict(graph.facts)
    whole = all(n.input("key_mask") and n.input("past_key") for n in layers)
    if whole and not any(reasons.values()) and not _beside_attention(graph):
        facts["cache"] = "shared"
    return replace(rewrite(graph, choice.rule), facts=facts)


def why_not_compact(graph: Graph, context: Context) -> str:
    """Why a graph cannot keep a compact cache; empty when it will."""
    if context.target.kernel(graph.phase, context.assume) != "fused":
        return "the target has no such kernel"
    masks = _masks(graph)
    for node in graph.nodes:
        if isinstance(node.op, Attention) and node.op.cache:
            why = _refusal(node, context.target)
            if why:
                return f"{place(node)}: {why}"
        elif node.op.compacted() is None and masks.intersection(node.inputs):
            return f"{place(node)} reads the mask column by column"
    return _beside_attention(graph)


def _masks(graph: Graph) -> set[Value | None]:
    """The padding masks of cached attention."""
    return {n.input("key_mask") for n in graph.nodes if isinstance(n.op, Attention) and n.op.cache} - {None}


def _beside_attention(graph: Graph) -> str:
    """Which operator beside attention continues cached keys or values (a tap without its layer), as a reason."""
    for node in graph.nodes:
        if isinstance(node.op, Attention) or node.op.compacted() is not None:
            continue
        if any(v is not None and v.type.rank == 4 and v.shape[2] == PAST for v in node.inputs):
            return f"{place(node)} continues a cache column by column"
    return ""


def _refusal(node: Node, target: Target) -> str:
    """Why GroupQueryAttention cannot compute an attention; empty when it can."""
    op, limits = node.op, target.group_query
    q, k, v = (node.need(n) for n in ("q", "k", "v"))
    assert isinstance(op, Attention)
    head_dim = int(q.shape[-1]) // op.heads
    if head_dim % limits.head_multiple:
        return f"heads of {head_dim} channels are no multiple of {limits.head_multiple}"
    if v.shape[-1] != k.shape[-1]:
        return "heads of keys and values differ in width"
    if q.shape[:2] != k.shape[:2]:
        return "it takes as many queries as new keys"
    if node.input("bias") is not None or node.input("mask") is not None or op.visibility.right is not None:
        return "it has a bias or a mask of its own"
    if not op.visibility.causal and q.shape[1] != 1:
        return "its queries see later keys"
    return ""


class _Choice:
    def __init__(self, graph: Graph, chosen: set[Value], kernel: AttentionKernel, target: Target) -> None:
        self.graph = graph
        self.chosen = chosen
        self.fused = kernel == "fused"
        self.limits = target.group_query
        self.biases: dict[tuple[Visibility, Value], Value] = {}
        self.masks = _masks(graph)

    def rule(self, node: Node, rewriter: Rewriter) -> tuple[Value, ...] | None:
        op = node.op
        compact = op.compacted() if self.fused else None
        if compact is not None and self.masks.intersection(node.inputs):
            return rewriter.remake(node, compact)
        if not isinstance(op, Attention) or node.outputs[0] not in self.chosen:
            return None
        mask = node.input("key_mask")
        kernel = GroupQueryAttention(op.heads, op.kv_heads, op.scale, softcap=op.softcap)
        operands = kernel.arrange(**{n: node.input(n) for n in ("q", "k", "v", "past_key", "past_value")}, mask=mask)
        if not self.fused:
            return rewriter.remake(node, kernel, operands, bias=self._bias(node, op, mask, rewriter))
        kernel = replace(kernel, window=op.visibility.window, compact=mask is not None)
        turned = self._ropes(node.need("q"), node.need("k"), rewriter)
        if turned is None:
            return rewriter.remake(node, kernel, operands)
        at_q, at_k, rope = turned
        kernel = replace(kernel, interleaved=rope.interleaved)
        tables = {name: at_q.input(name) for name in ("cos", "sin")}
        return rewriter.remake(node, kernel, operands, q=at_q.input("x"), k=at_k.input("x"), **tables)

    def _bias(self, node: Node, op: Attention, mask: Value | None, rewriter: Rewriter) -> Value | None:
        """The mask to add, one per window; None where nothing is hidden. The kernel is causal itself."""
        if mask is None:
            return None
        facts = AttentionMask(replace(op.visibility, causal=False))
        if (facts.visibility, mask) not in self.biases:
            seen = rewriter.emit(facts, facts.arrange(new=self.graph.inputs[0], mask=mask), node, "mask")[0]
            self.biases[facts.visibility, mask] = rewriter.emit(MaskBias(), (seen,), node, "bias")[0]
        return self.biases[facts.visibility, mask]

    def _ropes(self, q: Value, k: Value, rewriter: Rewriter) -> tuple[Node, Node, Rope] | None:
        """The ropes of q and k, if the operator can turn them itself: by one table, at the tokens' own positions."""
        at_q, at_k = rewriter.maker(q), rewriter.maker(k)
        if at_q is None or at_k is None or not isinstance(at_q.op, Rope) or not isinstance(at_k.op, Rope):
            return None
        table, ids = at_q.weight("cos"), at_q.input("position_ids")
        made = rewriter.maker(ids)
        if table is None or made is None or not isinstance(made.op, Positions) or at_k.input("position_ids") is not ids:
            return None
        other = at_k.weight("cos")
        if other is None or other.key != table.key:
            return None
        head_dim, rotary = int(q.shape[-1]) // at_q.op.heads, 2 * table.shape[1]
        if head_dim % self.limits.rotary_head_multiple or rotary % self.limits.rotary_dim_multiple:
            return None
        return (at_q, at_k, at_q.op) if at_q.op.interleaved == at_k.op.interleaved else None
