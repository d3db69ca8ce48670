"""Values and weights take the float type of the build; what needs float32 keeps it, between casts.

    (float16, on a target that computes in it)
    %h = norm(%x, w"g")                       %h = norm(%x, cast(w"g"; float16))
    %y = linear(%h, w"w")                =>   %y = linear(%h, cast(w"w"; float16))
    %s = delta_scan(%q, …) {float32}          %q32 = cast(%q) {float32};  %s = delta_scan(%q32, …)

    (float16, on a target that only stores it: weights are read in float16, and everything is computed in float32)
    %y = linear(%h, w"w")                =>   %y = linear(%h, cast(cast(w"w"; float16)) {float32})

Ports: logits, encoder outputs and float inputs are float32; keys, values and states of convolutions are of the build's
type, recurrent states float32. Operators say themselves which of them compute in float32 (`wide`); an operator that
moves or combines numbers between such ones stays float32 too. Stages that the build names are islands of float32.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TypeGuard

from flowc.errors import Diagnostics, nearest
from flowc.ir.core.cast import Cast
from flowc.ir.core.custom import Custom
from flowc.ir.core.gather import Gather
from flowc.ir.dtypes import ANY, FLOAT
from flowc.ir.graph import Graph, Node, Rewriter, Value, constant
from flowc.ir.types import TensorType
from flowc.ir.weights.expressions import Generated, cast_weight
from flowc.ir.weights.place import lies_in_graph
from flowc.passes.audit import Audit, Context, place

SINGLE = "float32"


def assign_precision(graph: Graph, context: Context, audit: Audit) -> Graph:
    """The graph in the float type of the build."""
    dtype = context.precision.dtype
    if dtype == SINGLE:
        return graph
    if dtype in context.target.stores:
        return _Storage(graph, dtype, audit).run()
    return _Compute(graph, dtype, context.precision.islands, audit).run()


def check_islands(islands: Sequence[str], graphs: Iterable[Graph], problems: Diagnostics) -> None:
    """Tell of patterns that match the path of no stage."""
    stages = {node.origin.stage for graph in graphs for node in graph.nodes}
    for pattern in islands if stages else ():
        if not any(fnmatchcase(stage, pattern) for stage in stages):
            hint = nearest(pattern, stages) or "`flowc explain` shows the paths of stages; `*` stands for any text"
            problems.error("unsupported-precision", f"--precision: no stage is called '{pattern}'", hint=hint)


class _Casts:
    """A rewriting of a graph whose values are cast once each."""

    def __init__(self, graph: Graph, dtype: str, audit: Audit) -> None:
        self.graph = graph
        self.dtype = dtype
        self.audit = audit
        self.rewriter = Rewriter(graph)
        self._cast: dict[tuple[Value, str], Value] = {}

    def cast(self, value: Value, to: str, like: Node) -> Value:
        """The value in another type; a weight is stored in it."""
        if value.dtype == to:
            return value
        if value.weight is not None:
            return constant(cast_weight(value.weight, to))
        if (value, to) not in self._cast:
            self._cast[value, to] = self.rewriter.emit(Cast(to), (value,), like, "cast")[0]
        return self._cast[value, to]


class _Storage(_Casts):
    """Weights of two axes and more are stored in the type, and cast back before they are used."""

    def __init__(self, graph: Graph, dtype: str, audit: Audit) -> None:
        super().__init__(graph, dtype, audit)
        self._widened: dict[str, Value] = {}

    def run(self) -> Graph:
        for old in self.graph.nodes:
            node = self.rewriter.up_to_date(old)
            if isinstance(node.op, Gather) and self._is_stored(node.input("table")):
                self._rows(node)
                continue
            inputs = tuple(self._widened_weight(v, node) if self._is_stored(v) else v for v in node.inputs)
            self.rewriter.add(node if inputs == node.inputs else replace(node, inputs=inputs))
        return self.rewriter.finish()

    def _is_stored(self, value: Value | None) -> TypeGuard[Value]:
        """Whether an operand is a weight of two axes or more; tables of angles are none."""
        weight = value.weight if value is not None else None
        if weight is None or weight.dtype != SINGLE or len(weight.shape) < 2:
            return False
        return not lies_in_graph(weight) and not isinstance(weight, Generated)

    def _rows(self, node: Node) -> None:
        """Rows are taken from the stored table, so that no wide one is held."""
        self.audit.fired.append(place(node))
        table = self.cast(node.need("table"), self.dtype, node)
        rows = self.rewriter.emit(node.op, (table, node.input("ids")), node, "stored")
        self.rewriter.remake(node, Cast(SINGLE), rows)

    def _widened_weight(self, value: Value, node: Node) -> Value:
        if value.name not in self._widened:  # a constant's name is its expression's key
            self.audit.fired.append(place(node))
            stored = self.cast(value, self.dtype, node)
            self._widened[value.name] = self.rewriter.emit(Cast(SINGLE), (stored,), node, "wide")[0]
        return self._widened[value.name]


class _Compute(_Casts):
    """Everything is of the type but what computes in float32."""

    def __init__(self, graph: Graph, dtype: str, islands: Sequence[str], audit: Audit) -> None:
        super().__init__(graph, dtype, audit)
        self._islands = islands
        self._wide = self._computed_wide()
        self._narrow_ports = {p for c in graph.caches if not c.wide for p in (c.past, c.present)} - {None}

    def run(self) -> Graph:
        inputs = tuple(self._input(v) for v in self.graph.inputs)
        for old, new in zip(self.graph.inputs, inputs, strict=True):
            self.rewriter.replace(old, new)
        for old in self.graph.nodes:
            self._retype(old)
        finished = replace(self.rewriter.finish(), inputs=inputs)
        return self._with_ports(finished)

    def _input(self, value: Value) -> Value:
        if value.dtype not in FLOAT or value.name not in self._narrow_ports:
            return value
        return Value(value.name, TensorType(self.dtype, value.shape))

    def _computed_wide(self) -> set[Node]:
        """Operators that compute in float32: those that say so, islands, and what stands between such ones alone."""
        users, outputs = self.graph.users(), {o.value for o in self.graph.outputs}
        wide: set[Node] = set()
        for node in reversed(self.graph.nodes):
            if node.op.wide or any(fnmatchcase(node.origin.stage, pattern) for pattern in self._islands):
                wide.add(node)
                continue
            readers = [r for v in node.outputs for r in users.get(v, [])]
            between = node.op.exact and readers and all(r in wide for r in readers)
            if between and outputs.isdisjoint(node.outputs):
                wide.add(node)
        return wide

    def _retype(self, old: Node) -> None:
        node = self.rewriter.up_to_date(old)
        wanted = SINGLE if old in self._wide else self.dtype
        if old.op.wide:
            self.audit.missed.append((place(old), "it computes in float32"))
        elif old not in self._wide and any(v.dtype in FLOAT for v in old.outputs):
            self.audit.fired.append(place(old))
        inputs = [self._operand(node, index, value, wanted, old) for index, value in enumerate(node.inputs)]
        results = self.rewriter.remake(node, node.op, inputs)
        for value, result in zip(node.outputs, results, strict=True):
            self.rewriter.replace(value, result)

    def _operand(self, node: Node, index: int, value: Value | None, wanted: str, old: Node) -> Value | None:
        before = old.inputs[index]
        if value is None or before is None or before.dtype not in FLOAT:
            return value
        if isinstance(node.op, Custom):
            return self.cast(value, before.dtype, node)  # its text says which types it takes
        allowed = next((a for places, a in node.op.dtypes if index in places), ())
        if allowed == ANY and value.weight is None:
            return value
        return self.cast(value, wanted if wanted in (allowed or FLOAT) else SINGLE, node)

    def _with_ports(self, graph: Graph) -> Graph:
        """The graph whose outputs are of the types that they have in the contract."""
        makers = graph.producers()
        nodes, outputs = list(graph.nodes), list(graph.outputs)
        for index, output in enumerate(outputs):
            value = output.value
            wanted = self.dtype if output.name in self._narrow_ports else SINGLE
            if value.dtype not in FLOAT or value.dtype == wanted:
                continue
            if value.weight is not None:
                outputs[index] = replace(output, value=constant(cast_weight(value.weight, wanted)))
                continue
            made = makers.get(value)
            like = made if made is not None else graph.nodes[-1]
            cast = Value(f"{output.name}.cast", TensorType(wanted, value.shape))
            nodes.append(Node(Cast(wanted), (value,), (cast,), like.origin))
            outputs[index] = replace(output, value=cast)
        return replace(graph, nodes=tuple(nodes), outputs=tuple(outputs))
