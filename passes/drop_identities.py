"""Operators that change nothing vanish.

Among them: a scale by one, the last of one token, a reshape to the same shape, what was split and is joined again, a
bias of zeros, a gain of ones.

    %a = scale(%x) {factor = 1.0}        %y = linear(%x, w"w")
    %b = take_last(%a)  : [b, 1, 8]  =>
    %y = linear(%b, w"w", zeros)
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from flowc.ir.core.attention import Attention
from flowc.ir.core.elementwise import Scale
from flowc.ir.core.layout import Concat, Reshape, Slice, Split, Transpose
from flowc.ir.core.linear import Linear
from flowc.ir.core.norm import Norm
from flowc.ir.core.pool import Pool
from flowc.ir.core.positions import Positions, TakeFirst, TakeLast
from flowc.ir.core.token_positions import AllOnes
from flowc.ir.graph import Graph, Node, Rewriter, Value, rewrite
from flowc.ir.op import Op
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
        if lean is not node.inputs:
            audit.fired.append(place(node))
            rewriter.add(replace(node, inputs=lean))
            return node.outputs
        return None

    return rewrite(graph, rule)


def _same_as(node: Node, rewriter: Rewriter) -> tuple[Value, ...] | None:
    """Values that a node's results are equal to."""
    x = node.inputs[0] if node.inputs else None
    if x is None:
        return None
    match node.op:
        case Scale(factor=1.0) | Split(sizes=(_,)):
            return (x,)
        case Concat() if len(node.inputs) == 1:
            return (x,)
        case Concat(axis=axis):
            return _rejoined(node, axis, rewriter)
        case TakeFirst() | TakeLast() if x.shape[1] == 1:
            return (x,)
        case Reshape(shape=shape) if shape == x.shape:
            return (x,)
        case Transpose(axes=axes):
            before = rewriter.maker(x)
            if axes == tuple(range(len(axes))):
                return (x,)
            if before is not None and isinstance(before.op, Transpose):
                first, inner = before.op.axes, before.inputs[0]
                return (inner,) if inner and all(first[a] == i for i, a in enumerate(axes)) else None
            return None
        case Slice(axis=axis, start=0, stop=stop):
            size = x.shape[axis % x.type.rank]
            return (x,) if stop is None or (isinstance(size, int) and stop >= size) else None
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
    x = source.inputs[0]
    return (x,) if x is not None and axis % x.type.rank == x.type.rank - 1 else None


_KEY_MASKS: dict[type[Op], str] = {Attention: "key_mask", Pool: "mask", Positions: "mask"}
"""Operators with a padding mask that may be left out, and its operand."""


def _without_neutral(node: Node, rewriter: Rewriter) -> tuple[Value | None, ...]:
    """The operands without a bias of zeros, a gain of ones or a mask of ones."""
    if type(node.op) in _KEY_MASKS:
        ones = node.input(_KEY_MASKS[type(node.op)])
        made = rewriter.maker(ones)
        return (
            tuple(None if v is ones else v for v in node.inputs)
            if made and isinstance(made.op, AllOnes)
            else node.inputs
        )
    if not isinstance(node.op, (Linear, Norm)) or len(node.inputs) < 2:
        return node.inputs
    inputs = list(node.inputs)
    if len(inputs) > 2 and _all(inputs[2], 0.0):
        del inputs[2:]
    if isinstance(node.op, Norm) and node.op.offset == 0.0 and len(inputs) == 2 and _all(inputs[1], 1.0):
        del inputs[1:]
    return tuple(inputs) if len(inputs) != len(node.inputs) else node.inputs


def _all(value: Value | None, number: float) -> bool:
    """Whether a value is a constant that the compiler made, of this number everywhere."""
    weight = value.weight if value is not None else None
    return isinstance(weight, Constant) and bool(np.all(weight.values == number))
