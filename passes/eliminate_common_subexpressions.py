"""Equal operators on equal operands become one, and a tap's cache becomes its layer's.

Every operator is a pure function of its operands, so one result serves all readers.

    %tap.norm   = norm(%x, w"g")                %tap.norm = norm(%x, w"g")
    %tap.k      = linear(%tap.norm, w"k")       %tap.k    = linear(%tap.norm, w"k")
    %layer.norm = norm(%x, w"g")            =>
    %layer.k    = linear(%layer.norm, w"k")
    %y          = attention(%q, %layer.k, …)    %y        = attention(%q, %tap.k, …)
"""

from __future__ import annotations

from collections.abc import Hashable

from flowc.ir.core.attention import Attention
from flowc.ir.core.layout import Concat, Reshape, Transpose
from flowc.ir.graph import Graph, Node, Rewriter, Value, rewrite
from flowc.ir.op import Op
from flowc.passes.audit import Audit, Context, place


def eliminate_common_subexpressions(graph: Graph, context: Context, audit: Audit) -> Graph:
    """Compute once what is computed twice; every operator is a pure function of its operands."""
    seen: dict[Hashable, tuple[Value, ...]] = {}

    def rule(node: Node, rewriter: Rewriter) -> tuple[Value, ...] | None:
        known = seen.setdefault(_key(node.op, *node.inputs), node.outputs)
        if known is not node.outputs:
            audit.fired.append(place(node))
            return known
        if isinstance(node.op, Attention) and node.op.cache:
            return _take_over(node, node.op, rewriter)
        return None

    def _take_over(node: Node, op: Attention, rewriter: Rewriter) -> tuple[Value, ...] | None:
        """The attention's own present stands for an equal one that was spelt out before it."""
        found = False
        for new, past, present in (("k", "past_key", 1), ("v", "past_value", 2)):
            value = node.input(new)
            assert value is not None
            dim = node.outputs[present].shape[-1]
            split = seen.get(_key(Reshape((*value.shape[:2], op.kv_heads, dim)), value))
            moved = seen.get(_key(Transpose((0, 2, 1, 3)), split[0])) if split else None
            before = node.input(past)
            if moved and before is not None:
                moved = seen.get(_key(Concat(2), before, moved[0]))
            if moved:
                rewriter.replace(moved[0], node.outputs[present])
                audit.fired.append(f"{place(node)}.{new}")
                found = True
        if not found:
            return None
        rewriter.add(node)
        return node.outputs

    return rewrite(graph, rule)


def _key(op: Op, *operands: Value | None) -> Hashable:
    """What makes two computations equal: operator, attributes, and operands (constants by their values)."""
    names = [v if v is None or v.weight is None else v.weight.key for v in operands]
    while names and names[-1] is None:
        names.pop()
    return (type(op), op, *names)
