"""Attention becomes the operator that pays on the target, for the graph's phase and for what the build assumes.

    (decode, no assumption: the mask is added)
    %a = attention(%q, %k, …, %mask) {window 4}    =>  %m = check_columns(%mask, %past_key, %ids)
                                                       %b = mask_bias(attention_mask(%ids, %m) {window 4})
                                                       %a = group_query_attention(%q, %k, …, %m, bias = %b)
    (--assume right-padding: rope and mask inside)
    %q = rope(%q0, cos, sin, %ids); %k = …         =>  %a = group_query_attention(%q0, %k0, …, %mask, cos, sin)
    %a = attention(%q, %k, …, %mask)                       {compact}

What each target wants is a table in `flowc/targets/`. Where the operator's limits forbid it, ONNX Attention stays.
A compact cache is one for all layers: unless every reader of the mask can go along, the graph keeps aligned columns
and the kernel that suits them. The same holds for a static one (--cache static), where past is a buffer that new keys
are written into, and the mask says how much of it is in use. The kernel takes such a mask in every graph: where the
cache is not static, `check_columns` stops a run whose mask has another number of columns than there are tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from flowc.ir.core.attention import Attention, AttentionMask
from flowc.ir.core.layout import Split
from flowc.ir.core.positions import Positions
from flowc.ir.core.rope import Rope
from flowc.ir.graph import Graph, Node, Rewriter, Value, infer, rewrite
from flowc.ir.kernel.columns import CheckColumns
from flowc.ir.kernel.group_query import GroupQueryAttention, MaskBias, PackedGroupQueryAttention
from flowc.ir.types import PAST
from flowc.ir.visibility import Visibility
from flowc.passes.audit import Audit, Context, place
from flowc.targets.target import Row


def fuse_attention(graph: Graph, context: Context, audit: Audit) -> Graph:
    """Replace cached attention by the target's kernel; say in the graph's facts how its cache is held."""
    layers = [n for n in graph.nodes if isinstance(n.op, Attention) and n.op.cache]
    row = _row(graph, context)
    if row is None or not layers:
        return graph
    made_by = graph.maker_of()
    reasons = {n: row.why_not(n, made_by) for n in layers}
    together = why_not_compact(graph, context) if "compact" in row.forms else ""
    if together:
        audit.missed += [(place(n), reasons[n] or together) for n in layers]
        row = context.target.fused_attention(graph.phase, "none", context.computes_in)
        if row is None:
            return graph
    else:
        audit.missed += [(place(n), why) for n, why in reasons.items() if why]
        audit.fired += [place(n) for n, why in reasons.items() if not why]
    chosen = {n.outputs[0] for n, why in reasons.items() if not why}
    static = context.cache == "static"
    why = why_not_static(graph, context) if static else ""
    if why:
        audit.missed.append((layers_place(layers), f"the cache is not static: {why}"))
        static = False
    if not static:
        graph = _with_checked_mask(graph, layers)
    choice = _Choice(graph, chosen, row, static)
    facts = {**graph.facts, "cache": "shared" if static else "compact" if "compact" in row.forms else "aligned"}
    return replace(rewrite(graph, choice.rule), facts=facts)


def layers_place(layers: Sequence[Node]) -> str:
    """How audits name all layers together."""
    return place(layers[0]) if len(layers) == 1 else f"{place(layers[0])} and {len(layers) - 1} more"


def _row(graph: Graph, context: Context) -> Row | None:
    """The target's row for the attention of a graph, if GroupQueryAttention pays there."""
    return context.target.fused_attention(graph.phase, _assumed(context), context.computes_in)


def _assumed(context: Context) -> str:
    """What the kernels may assume of padding: a cache that is to stay aligned assumes nothing of its columns."""
    return "none" if context.cache == "aligned" and context.assume == "right-padding" else context.assume


def why_not_static(graph: Graph, context: Context) -> str:
    """Why a graph's cache cannot lie in a buffer of fixed length; empty when it can."""
    row = context.target.fused_attention(graph.phase, "none", context.computes_in) or _row(graph, context)
    made_by = graph.maker_of()
    for node in (n for n in graph.nodes if isinstance(n.op, Attention) and n.op.cache):
        if why := "the target has no such kernel" if row is None else row.why_not(node, made_by):
            return f"{place(node)}: {why}"
        if node.input("key_mask") is None or node.input("past_key") is None:
            return f"{place(node)} has no mask that says what of a buffer is in use"
    masks = _masks(graph)
    for node in graph.nodes:
        if node.op.switches():
            return f"{place(node)} picks a rope's tables, for which rows without a new token would count"
        if not isinstance(node.op, Attention) and node.op.compacted() is None and masks.intersection(node.inputs):
            return f"{place(node)} reads the mask's last columns"
    return _beside_attention(graph)


def _with_checked_mask(graph: Graph, layers: Sequence[Node]) -> Graph:
    """The graph with a `check_columns` between its mask and all that reads it, where there is a cache to count."""
    first = next((n for n in layers if n.input("key_mask") is not None and n.input("past_key") is not None), None)
    if first is None:
        return graph
    mask, past = first.input("key_mask"), first.input("past_key")
    assert mask is not None and past is not None
    if mask not in graph.inputs or past not in graph.inputs:
        return graph
    operands = (mask, past, graph.inputs[0])
    checked = Value("checked_mask", infer(CheckColumns(), operands)[0])
    nodes = [Node(CheckColumns(), operands, (checked,), first.origin)]
    for node in graph.nodes:
        inputs = tuple(checked if v is mask else v for v in node.inputs)
        nodes.append(node if inputs == node.inputs else replace(node, inputs=inputs))
    return replace(graph, nodes=tuple(nodes))


def why_not_compact(graph: Graph, context: Context) -> str:
    """Why a graph cannot keep a compact cache; empty when it will."""
    row = _row(graph, context)
    if row is None or "compact" not in row.forms:
        return "the target has no such kernel"
    masks, made_by = _masks(graph), graph.maker_of()
    for node in graph.nodes:
        if isinstance(node.op, Attention) and node.op.cache:
            why = row.why_not(node, made_by)
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


class _Choice:
    def __init__(self, graph: Graph, chosen: set[Value], row: Row, static: bool) -> None:
        self.graph = graph
        self.static = static
        self.chosen = chosen
        self.forms = row.forms
        self.fused = "compact" in row.forms
        self.limits = row.limits
        self.biases: dict[tuple[Visibility, Value], Value] = {}
        self.masks = _masks(graph)

    def rule(self, node: Node, rewriter: Rewriter) -> tuple[Value, ...] | None:
        op = node.op
        # In a static cache too, a token's position is its row's number of tokens: its column is not the mask's last.
        compact = op.compacted() if self.fused or self.static else None
        if compact is not None and self.masks.intersection(node.inputs):
            return rewriter.remake(node, compact)
        if not isinstance(op, Attention) or node.outputs[0] not in self.chosen:
            return None
        mask = node.input("key_mask")
        kernel = GroupQueryAttention(op.heads, op.kv_heads, op.scale, softcap=op.softcap)
        operands = kernel.arrange(**{n: node.input(n) for n in ("q", "k", "v", "past_key", "past_value")}, mask=mask)
        if not self.fused:
            kernel = replace(kernel, static=self.static)
            return rewriter.remake(node, kernel, operands, bias=self._bias(node, op, mask, rewriter))
        compact, ragged = mask is not None, mask is not None and "ragged" in self.forms
        kernel = replace(kernel, window=op.visibility.window, compact=compact, ragged=ragged)
        turned = self._ropes(node.need("q"), node.need("k"), rewriter)
        if turned is None:
            return rewriter.remake(node, kernel, operands)
        at_q, at_k, rope = turned
        kernel = replace(kernel, interleaved=rope.interleaved)
        tables = {name: at_q.input(name) for name in ("cos", "sin")}
        operands = kernel.arrange(operands, q=at_q.input("x"), k=at_k.input("x"), **tables)
        return self._packed(node, kernel, operands, rewriter) or rewriter.remake(node, kernel, operands)

    def _packed(
        self, node: Node, kernel: GroupQueryAttention, operands: Sequence[Value | None], rewriter: Rewriter
    ) -> tuple[Value, ...] | None:
        """The kernel on what q, k and v were split from, where the target's takes them side by side."""
        parts = tuple(operands[:3])
        split = rewriter.maker(parts[0])
        if "packed" not in self.forms or split is None or not isinstance(split.op, Split) or split.outputs != parts:
            return None
        packed = PackedGroupQueryAttention(kernel)
        qkv = split.need("x")
        if split.op.sizes != packed.sizes(qkv.type):
            return None
        return rewriter.remake(node, packed, (qkv, *operands[3:]))

    def _bias(self, node: Node, op: Attention, mask: Value | None, rewriter: Rewriter) -> Value | None:
        """The mask to add, one per window; None where nothing is hidden. The kernel is causal itself."""
        if mask is None:
            return None
        facts = AttentionMask(replace(op.visibility, causal=False))
        if (facts.visibility, mask) not in self.biases:
            seen = rewriter.emit(facts, facts.arrange(new=self.graph.inputs[0], mask=mask), node, "mask")[0]
            bias = MaskBias(node.need("q").dtype)
            self.biases[facts.visibility, mask] = rewriter.emit(bias, (seen,), node, "bias")[0]
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
        if head_dim % self.limits["rotary_head_multiple"] or rotary % self.limits["rotary_dim_multiple"]:
            return None
        return (at_q, at_k, at_q.op) if at_q.op.interleaved == at_k.op.interleaved else None
