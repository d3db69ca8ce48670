"""Projections of one value become one projection, whose result is split.

    %q = linear(%h, w"q")          %p = linear(%h, concat(w"q", w"k", w"v"; 0))
    %k = linear(%h, w"k")      =>  %q, %k, %v = split(%p) {sizes = (64, 32, 32)}
    %v = linear(%h, w"v")

Weights lie [out, in], so a packed one is its parts' rows one after another, and a graph that wants a part alone reads
the same bytes. Only where the target says that it pays; in a build that uses the weights where they lie, only where the
rows already follow each other.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise

from flowc.ir.core.attention import Attention
from flowc.ir.core.layout import Split
from flowc.ir.core.linear import Linear
from flowc.ir.core.norm import Norm
from flowc.ir.core.rope import Rope
from flowc.ir.graph import Graph, Node, Rewriter, Value, constant, rewrite
from flowc.ir.weights.expressions import Concat, Rows, Weight
from flowc.passes.audit import Audit, Context, place


def fuse_projections(graph: Graph, context: Context, audit: Audit) -> Graph:
    """Join linear operators that read the same value."""
    dtype = context.computes_in
    forms = {f for row in context.target.rows(Linear, graph.phase, context.assume, dtype) for f in row.forms}
    if forms.isdisjoint(("packed", "packed attention")):
        return graph
    users = graph.users()
    uses = Counter(t.key for n in graph.nodes for v in n.inputs if v and v.weight for t in v.weight.tensors())
    groups: dict[Value, list[Node]] = {}
    for node in graph.nodes:
        if isinstance(node.op, Linear):
            groups.setdefault(node.need("x"), []).append(node)
    packed: dict[Node, list[Node]] = {}
    for nodes in groups.values():
        if len(nodes) < 2 or ("packed" not in forms and not all(_feeds_attention(n, users) for n in nodes)):
            continue
        why = _refusal(nodes, uses)
        if context.in_place and not why:
            why = (
                ""
                if _adjacent([w for n in nodes if (w := n.weight("weight"))])
                else "its weights are used where they lie"
            )
        if why:
            audit.missed.append((place(nodes[0]), why))
        else:
            audit.fired.append(place(nodes[0]))
            packed.update(dict.fromkeys(nodes, nodes))
    originals = {n.outputs[0]: n for n in graph.nodes}
    results: dict[Value, Value] = {}

    def rule(node: Node, rewriter: Rewriter) -> tuple[Value, ...] | None:
        nodes = packed.get(originals[node.outputs[0]])
        if nodes is None:
            return None
        if node.outputs[0] not in results:
            parts = [n.weight("weight") for n in nodes]
            biases = [n.weight("bias") for n in nodes]
            weight = constant(_joined([w for w in parts if w]))
            bias = constant(_joined([b for b in biases if b])) if biases[0] is not None else None
            operands = Linear().arrange(x=node.need("x"), weight=weight, bias=bias)
            joined = rewriter.emit(Linear(), operands, node, "packed")[0]
            sizes = tuple(w.shape[0] for w in parts if w)
            split = rewriter.emit(Split(sizes), (joined,), node, "split")
            results.update({n.outputs[0]: v for n, v in zip(nodes, split, strict=True)})
        return (results[node.outputs[0]],)

    return rewrite(graph, rule)


def _feeds_attention(node: Node, users: Mapping[Value, Sequence[Node]]) -> bool:
    """Whether attention alone reads a projection, behind its norm and rope."""
    readers = users.get(node.outputs[0], [])
    return bool(readers) and all(
        isinstance(r.op, Attention) or (isinstance(r.op, (Norm, Rope)) and _feeds_attention(r, users)) for r in readers
    )


def _joined(parts: list[Weight]) -> Weight:
    """The rows of all parts: those of one weight where they were its rows in order, else a new one."""
    whole = _adjacent(parts)
    return whole if whole is not None else Concat(tuple(parts))


def _adjacent(parts: list[Weight]) -> Weight | None:
    """The weight whose rows the parts are, one after another; None when they are not."""
    rows = [p for p in parts if isinstance(p, Rows)]
    if len(rows) != len(parts) or any(r.of.key != rows[0].of.key for r in rows):
        return None
    if any(a.stop != b.start for a, b in pairwise(rows)):
        return None
    of, start, stop = rows[0].of, rows[0].start, rows[-1].stop
    return of if (start, stop) == (0, of.shape[0]) else Rows(of, start, stop)


def _refusal(nodes: list[Node], uses: Counter[str]) -> str:
    """Why projections of one value cannot be joined; empty when they can."""
    own = Counter(t.key for n in nodes if (w := n.weight("weight")) for t in w.tensors())
    for node in nodes:
        weight, bias = node.weight("weight"), node.input("bias")
        if weight is None or (bias is not None and bias.weight is None):
            return f"{place(node)} has no constant weight"
        if any(uses[t.key] != own[t.key] for t in weight.tensors()):
            return f"the weight of {place(node)} is read elsewhere too"
    if len({n.input("bias") is None for n in nodes}) > 1:
        return "some of them have a bias, others none"
    return ""
