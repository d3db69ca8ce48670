"""Operators that change nothing vanish.

Among them: a scale by one, the last of one token, a reshape to the same shape, what was split and is joined again, a
bias of zeros, a gain of ones, a padding mask of ones.

    %a = scale(%x) {factor = 1.0}        %y = linear(%x, w"w")
    %b = take_last(%a)  : [b, 1, 8]  =>
    %y = linear(%b, w"w", zeros)

Operators say themselves when they change nothing (`is_identity`) and which operands then say nothing (`neutral`);
here are the pairs that undo each other.
"""

from __future__ import annotations

import numpy as np

from flowc.ir.core.layout import Concat, Split, Transpose
from flowc.ir.graph import Graph, Node, Rewriter, Value, infer, rewrite
from flowc.ir.types import ShapeError
from flowc.ir.weights.expressions import Constant
from flowc.passes.audit import Audit, Context, place


def drop_identities(graph: Graph, context: Context, audit: Audit) -> Graph:
    """Let readers of an operator that changes nothing read its operand; drop biases of zeros and masks of ones."""

    def rule(node: Node, rewriter: Rewriter) -> tuple[Value, ...] | None:
        same = _same_as(node, rewriter)
        if same is not None:
            audit.fired.append(place(node))
            return same
        lean = _without_neutral(node, rewriter)
        if lean is not node:
            audit.fired.append(place(node))
            rewriter.add(lean)
            return node.outputs
        return None

    return rewrite(graph, rule)


def _same_as(node: Node, rewriter: Rewriter) -> tuple[Value, ...] | None:
    """Values that a node's results are equal to."""
    x = node.inputs[0] if node.inputs else None
    if x is None:
        return None
    if node.op.is_identity(node.input_types):
        return (x,)
    match node.op:
        case Concat(axis=axis):
            return _rejoined(node, axis, rewriter)
        case Transpose(axes=axes):
            before = rewriter.maker(x)
            if before is None or not isinstance(before.op, Transpose):
                return None
            first = before.op.axes
            return (before.need("x"),) if all(first[a] == i for i, a in enumerate(axes)) else None
        case Split(sizes=sizes):
            before = rewriter.maker(x)
            if before is None or not isinstance(before.op, Concat) or before.op.axis % x.type.rank != x.type.rank - 1:
                return None
            parts = tuple(v for v in before.inputs if v is not None)
            return parts if tuple(v.shape[-1] for v in parts) == sizes else None
        case _:
            return None


def _rejoined(node: Node, axis: int, rewriter: Rewriter) -> tuple[Value, ...] | None:
    """What was split and is joined again in the same order."""
    source = rewriter.maker(node.inputs[0])
    if source is None or not isinstance(source.op, Split) or source.outputs != node.inputs:
        return None
    x = source.need("x")
    return (x,) if axis % x.type.rank == x.type.rank - 1 else None


def _without_neutral(node: Node, rewriter: Rewriter) -> Node:
    """The node without operands that say nothing, from the last on: a gain may be there for a bias alone."""
    neutral = node.op.neutral()
    for operand in reversed(node.op.operands):
        if operand in neutral and _all(node.input(operand), neutral[operand], rewriter):
            lean = node.with_operands(**{operand: None})
            if _types(lean) == node.output_types:
                node = lean
    return node


def _types(node: Node) -> tuple[object, ...]:
    try:
        return infer(node.op, node.inputs)
    except ShapeError:
        return ()


def _all(value: Value | None, number: float, rewriter: Rewriter) -> bool:
    """Whether a value is this number everywhere: the compiler's constant, or what an operator always makes."""
    made = rewriter.maker(value)
    if made is not None:
        return made.op.uniform == number
    weight = value.weight if value is not None else None
    return isinstance(weight, Constant) and bool(np.all(weight.values == number))
