"""Projections of one value become one projection, whose result is split.

    %q = linear(%h, w"q")          %p = linear(%h, concat(w"q", w"k", w"v"; 0))
    %k = linear(%h, w"k")      =>  %q, %k, %v = split(%p) {sizes = (64, 32, 32)}
    %v = linear(%h, w"v")

Weights lie [out, in], so a packed one is its parts' rows one after another, and a graph that wants a part alone reads
the same bytes. Only where the target says that it pays, and not in a build that uses the weights where they lie.
"""

from __future__ import annotations

from collections import Counter

from flowc.ir.graph import Graph, Node, Rewriter, Value, constant, rewrite
from flowc.ir.ops.layout import Split
from flowc.ir.ops.linear import Linear
from flowc.ir.weight import Concat
from flowc.passes.audit import Audit, Context, place


def pack_projections(graph: Graph, context: Context, audit: Audit) -> Graph:
    """Join linear operators that read the same value."""
    if graph.phase not in context.target.packs or context.in_place:
        return graph
    uses = Counter(t.key for n in graph.nodes for v in n.inputs if v and v.weight for t in v.weight.tensors())
    groups: dict[Value, list[Node]] = {}
    for node in graph.nodes:
        if isinstance(node.op, Linear) and node.inputs[0] is not None:
            groups.setdefault(node.inputs[0], []).append(node)
    packed: dict[Node, list[Node]] = {}
    for nodes in groups.values():
        if len(nodes) < 2:
            continue
        why = _refusal(nodes, uses)
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
            operands: list[Value | None] = [node.inputs[0], constant(Concat(tuple(w for w in parts if w)))]
            if biases[0] is not None:
                operands.append(constant(Concat(tuple(b for b in biases if b))))
            joined = rewriter.emit(Linear(), operands, node, "packed")[0]
            sizes = tuple(w.shape[0] for w in parts if w)
            split = rewriter.emit(Split(sizes), (joined,), node, "split")
            results.update({n.outputs[0]: v for n, v in zip(nodes, split, strict=True)})
        return (results[node.outputs[0]],)

    return rewrite(graph, rule)


def _refusal(nodes: list[Node], uses: Counter[str]) -> str:
    """Why projections of one value cannot be joined; empty when they can."""
    for node in nodes:
        weight, bias = node.weight("weight"), node.input("bias")
        if weight is None or (bias is not None and bias.weight is None):
            return f"{place(node)} has no constant weight"
        if any(uses[t.key] > 1 for t in weight.tensors()):
            return f"the weight of {place(node)} is read elsewhere too"
    if len({n.input("bias") is None for n in nodes}) > 1:
        return "some of them have a bias, others none"
    return ""
