"""What touches only constants, or can be moved into one, is computed once, when the data file is written.

    %n = norm(%x, w"g") {offset = 1.0}      =>  %n = norm(%x, affine(w"g"; 1.0, 1.0))
    %y = binary(linear(%x, w"w", w"b"),         %y = linear(%x, mul(w"w", reshape(w"s")), mul(w"b", w"s"))
                w"s") {mul}                 =>
    %e = scale(gather(w"t", %ids)) {5.0}    =>  %e = gather(affine(w"t"; 5.0, 0.0), %ids)
    %y = softcap(linear(%x, w"w")) {30.0}   =>  %y = scale(tanh(linear(%x, affine(w"w"; 1 / 30.0, 0.0)))) {30.0}
    %y = (%x + w"row") + gather(w"t", %ids) =>  %y = %x + gather(add(w"t", w"row"), %ids)
    %p = gather(w"t", [[0]])                =>  reshape(rows(w"t"; 0:1))

A weight that others read too stays as it is: a second copy would cost more than the multiplication saves.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from math import prod

from flowc.ir.core.elementwise import Binary, Scale, Softcap, Unary
from flowc.ir.core.gather import Gather
from flowc.ir.core.linear import Linear
from flowc.ir.core.norm import Norm
from flowc.ir.graph import Graph, Node, Rewriter, Value, constant, rewrite
from flowc.ir.weights import expressions as weights
from flowc.ir.weights.expressions import Affine, Product, Sum, Weight
from flowc.passes.audit import Audit, Context, place

SHARED = "its weight is read elsewhere too"


def fold_weights(graph: Graph, context: Context, audit: Audit) -> Graph:
    """Fold constants: offsets of norms, scales behind projections and tables, operators on constants alone."""
    folding = _Folding(graph, context, audit)
    return rewrite(graph, folding.rule)


class _Folding:
    def __init__(self, graph: Graph, context: Context, audit: Audit) -> None:
        self.unchanged = context.why_unchanged
        self.audit = audit
        self.readers = graph.users()
        self.outputs = {o.value for o in graph.outputs}
        # Of each tensor, the operands that it occurs in: folding into it must not make a second copy for another one.
        self.uses = Counter(t.key for n in graph.nodes for v in n.inputs if v and v.weight for t in v.weight.tensors())

    def rule(self, node: Node, rewriter: Rewriter) -> tuple[Value, ...] | None:
        match node.op:
            case Norm(offset=offset) if offset:
                return self._offset(node, node.op, rewriter)
            case Scale(factor=factor):
                return self._scaled(node, factor, rewriter)
            case Softcap(cap=cap):
                return self._capped(node, cap, rewriter)
            case Binary(function="add"):
                return self._constants(node) or self._into_table(node, rewriter)
            case Binary(function="mul"):
                return self._constants(node) or self._per_channel(node, rewriter)
            case _:
                return self._constants(node)

    def _fired(self, node: Node) -> None:
        self.audit.fired.append(place(node))

    def _missed(self, node: Node, why: str) -> None:
        self.audit.missed.append((place(node), why))

    def _offset(self, node: Node, op: Norm, rewriter: Rewriter) -> tuple[Value, ...] | None:
        gain = node.input("gain")
        if gain is None or gain.weight is None:
            self._missed(node, "its gain is not a constant")
            return None
        self._fired(node)
        return rewriter.remake(node, replace(op, offset=0.0), gain=constant(Affine(gain.weight, 1.0, op.offset)))

    # A factor behind a projection or a table

    def _scaled(self, node: Node, factor: float, rewriter: Rewriter) -> tuple[Value, ...] | None:
        made = self._made_for(node, node.need("x"), rewriter)
        if made is None:
            return self._constants(node)
        self._fired(node)
        return rewriter.remake(node, made.op, _times(made, factor))

    def _capped(self, node: Node, cap: float, rewriter: Rewriter) -> tuple[Value, ...] | None:
        made = self._made_for(node, node.need("x"), rewriter)
        if made is None:
            return None
        self._fired(node)
        small = rewriter.emit(made.op, _times(made, 1.0 / cap), made)[0]
        bounded = rewriter.emit(Unary("tanh"), (small,), node, "tanh")[0]
        return rewriter.remake(node, Scale(cap), (bounded,))

    def _per_channel(self, node: Node, rewriter: Rewriter) -> tuple[Value, ...] | None:
        for x, vector in (node.inputs[:2], node.inputs[1::-1]):
            if x is None or vector is None or vector.weight is None or x.weight is not None:
                continue
            width = x.shape[-1]
            if not isinstance(width, int) or vector.shape[-1] != width or prod(vector.weight.shape) != width:
                continue
            made = self._made_for(node, x, rewriter)
            if made is None:
                continue
            if not isinstance(made.op, Linear):
                self._missed(node, "a vector over a table")
                continue
            self._fired(node)
            weight, bias = made.weight("weight"), made.weight("bias")
            assert weight is not None
            flat = _reshaped(vector.weight, (width,))
            folded = made.with_operands(weight=constant(Product(weight, weights.Reshape(flat, (width, 1)))))
            if bias is not None:
                folded = folded.with_operands(bias=constant(Product(bias, flat)))
            return rewriter.remake(node, folded.op, folded.inputs)
        return None

    def _into_table(self, node: Node, rewriter: Rewriter) -> tuple[Value, ...] | None:
        """(x + row) + table[ids] with one constant row for all tokens: x + (table + row)[ids]."""
        for total, looked in (node.inputs[:2], node.inputs[1::-1]):
            sum_, table = rewriter.maker(total), rewriter.maker(looked)
            if sum_ is None or table is None or sum_.op != Binary("add") or not isinstance(table.op, Gather):
                continue
            row = next((v for v in sum_.inputs if v is not None and v.weight is not None), None)
            x = next((v for v in sum_.inputs if v is not None and v.weight is None), None)
            width = node.outputs[0].shape[-1]
            if row is None or row.weight is None or x is None or row.weight.nbytes != 4 * int(width):
                continue
            if x.type != node.outputs[0].type or len(self.readers.get(sum_.outputs[0], [])) != 1:
                continue
            if self._made_for(node, looked, rewriter) is None:
                continue
            self._fired(node)
            weight = table.weight("table")
            assert weight is not None
            folded = constant(Sum(weight, _reshaped(row.weight, (1, int(width)))))
            there = rewriter.emit(Gather(), table.with_operands(table=folded).inputs, table)[0]
            return rewriter.remake(node, node.op, a=x, b=there)
        return None

    def _made_for(self, node: Node, x: Value | None, rewriter: Rewriter) -> Node | None:
        """The projection or table that makes x for this node alone, if its weights may change."""
        made = rewriter.maker(x)
        if made is None or x is None or not made.op.scales_with:
            return None
        if self.unchanged:
            self._missed(node, self.unchanged)
            return None
        if len(self.readers.get(x, [])) != 1 or x in self.outputs:
            self._missed(node, f"{place(made)} is read elsewhere too")
            return None
        for value in (v for n in made.op.scales_with if (v := made.input(n)) is not None):
            if value.weight is None:
                self._missed(node, f"{place(made)} has no constant weight")
                return None
            if any(self.uses[t.key] > 1 for t in value.weight.tensors()):
                self._missed(node, f"{place(made)}: {SHARED}")
                return None
        return made

    # Operators on constants alone

    def _constants(self, node: Node) -> tuple[Value, ...] | None:
        operands = [v.weight if v is not None else None for v in node.inputs]
        if not all(w is not None or v is None for w, v in zip(operands, node.inputs, strict=True)):
            return None
        folded = node.op.of_constants(operands)
        if folded is None or folded.shape != node.outputs[0].shape:
            return None
        self._fired(node)
        return (constant(folded),)


def _times(made: Node, factor: float) -> tuple[Value | None, ...]:
    """Operands of a projection or a table whose result is multiplied by a factor."""
    scaled = {n: constant(Affine(w, factor)) for n in made.op.scales_with if (w := made.weight(n)) is not None}
    return made.with_operands(**scaled).inputs


def _reshaped(weight: Weight, sizes: tuple[int, ...]) -> Weight:
    return weight if weight.shape == sizes else weights.Reshape(weight, sizes)
