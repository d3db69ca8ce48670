"""The stage IR: one SSA graph of core operators per phase.

    graph prefill(%input_ids: int64[batch_size, sequence_length], ...) {
      %embed.gather = gather(w"model.embed_tokens.weight", %input_ids) : float32[...]   @ tiny.yaml:14:5 embed
      ...
      return logits = %lm_head.linear
    }

Values and nodes are immutable and compared by identity. A pass makes a new graph; `rewrite` is the usual way.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any

from flowc.errors import InternalError, Span
from flowc.ir.op import Op
from flowc.ir.phases import Phase
from flowc.ir.ports import CacheSlot
from flowc.ir.types import SEQUENCE, ShapeError, TensorType, sequence_of
from flowc.ir.weights.expressions import Weight


@dataclass(frozen=True, slots=True)
class Origin:
    """Where an operator comes from: the stage's path and kind, and its place in the spec."""

    stage: str
    kind: str
    span: Span | None = None

    def __str__(self) -> str:
        return f"{self.span} {self.stage}" if self.span else self.stage


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """The result of one node, a graph input, or (with `weight`) a constant."""

    name: str
    type: TensorType
    weight: Weight | None = None

    @property
    def shape(self) -> tuple[int | str, ...]:
        """Shape of the value."""
        return self.type.shape

    @property
    def dtype(self) -> str:
        """Element type of the value."""
        return self.type.dtype


def constant(weight: Weight) -> Value:
    """A constant value; its name is the expression's key."""
    return Value(weight.key, TensorType(weight.dtype, weight.shape), weight)


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One operator with its operands and results."""

    op: Op
    inputs: tuple[Value | None, ...]
    outputs: tuple[Value, ...]
    origin: Origin

    def input(self, operand: str) -> Value | None:
        """An operand by its declared name; None when absent. InternalError for a name that the operator lacks."""
        index = self.op.index_of(operand)
        return self.inputs[index] if index < len(self.inputs) else None

    def need(self, operand: str) -> Value:
        """An operand that is always there, by its declared name."""
        value = self.input(operand)
        if value is None:
            raise InternalError(f"{self.op.name} of {self.origin.stage} has no operand '{operand}'")
        return value

    def with_operands(self, **named: Value | None) -> Node:
        """The node with other operands in the places of those named; None takes one away."""
        return replace(self, inputs=self.op.arrange(self.inputs, **named))

    @property
    def input_types(self) -> tuple[TensorType | None, ...]:
        """Types of the operands in order; None for one that is absent."""
        return tuple(v.type if v is not None else None for v in self.inputs)

    @property
    def output_types(self) -> tuple[TensorType, ...]:
        """Types of the results."""
        return tuple(v.type for v in self.outputs)

    def weight(self, operand: str) -> Weight | None:
        """The weight expression of an operand, when it is a constant."""
        value = self.input(operand)
        return value.weight if value is not None else None


MadeBy = Callable[[Value | None], Node | None]
"""Finds the node that makes a value, if one does."""


@dataclass(frozen=True, slots=True)
class Output:
    """A named result of a graph."""

    name: str
    value: Value


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """A phase of a model. `facts` holds what every later room may need to know about the whole graph."""

    phase: Phase
    inputs: tuple[Value, ...]
    outputs: tuple[Output, ...]
    nodes: tuple[Node, ...]
    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    caches: tuple[CacheSlot, ...] = ()
    """The states that travel from call to call, or from one component to another, in order of first use."""
    component: str = ""
    """The component that it belongs to; empty in a model of one."""
    main: bool = True
    """Whether that is the model's own component, whose files have the plain names."""
    connections: Mapping[str, str] = field(default_factory=dict[str, str])
    """Inputs that hold what other components take or give, each with `COMPONENT.port`."""

    @property
    def name(self) -> str:
        """What it is called in a manifest and by `--graph`: its phase, or its component beside the main one."""
        return self.phase.name if self.main else self.component

    @property
    def axes(self) -> Mapping[str, str]:
        """Dimensions that files call otherwise: the tokens of a component beside the main one."""
        return {} if self.main else {SEQUENCE: sequence_of(self.component)}

    def port_type(self, value: Value) -> TensorType:
        """Type of an input or output as files have it."""
        return TensorType(value.dtype, tuple(self.axes.get(str(d), d) for d in value.shape))

    @property
    def states(self) -> tuple[CacheSlot, ...]:
        """Its own states, which later calls go on from: not what other components read, or what it reads of them."""
        return tuple(s for s in self.caches if self.phase.emits_cache and s.past not in self.connections)

    @property
    def cache_ports(self) -> frozenset[str]:
        """Names of the inputs and outputs that its own states travel through."""
        return frozenset(port for s in self.states for port in (s.past, s.present) if port is not None)

    def producers(self) -> dict[Value, Node]:
        """The node that makes each computed value."""
        return {value: node for node in self.nodes for value in node.outputs}

    def maker_of(self) -> MadeBy:
        """Finds the node that makes a value of the graph."""
        makers = self.producers()
        return lambda value: makers.get(value) if value is not None else None

    def users(self) -> dict[Value, list[Node]]:
        """The nodes that read each value."""
        users: dict[Value, list[Node]] = {}
        for node in self.nodes:
            for value in node.inputs:
                if value is not None:
                    users.setdefault(value, []).append(node)
        return users

    def over_tokens_of(self, value: Value) -> Value:
        """A value over the same tokens as one [batch, sequence, ...] that all layers have in common: else itself."""
        tokens = self.inputs[0]
        return tokens if tokens.type.rank >= 2 and tokens.shape[:2] == value.shape[:2] else value

    @property
    def one_row_over_a_past(self) -> bool:
        """Whether a call of several new tokens over a past has a batch of one."""
        return any(node.op.one_row_over_a_past for node in self.nodes)

    def weights(self) -> Iterator[Weight]:
        """Every constant operand, in order of first use; equal expressions once."""
        seen: set[str] = set()
        for value in [v for n in self.nodes for v in n.inputs] + [o.value for o in self.outputs]:
            if value is not None and value.weight is not None and value.weight.key not in seen:
                seen.add(value.weight.key)
                yield value.weight


def infer(op: Op, inputs: Sequence[Value | None]) -> tuple[TensorType, ...]:
    """Types of an operator's results; raises ShapeError that names the operator, also for the number of operands."""
    try:
        return _types(op, tuple([v.type if v is not None else None for v in inputs]))
    except ShapeError as e:
        raise ShapeError(f"{op.name}: {e}") from None


@lru_cache(maxsize=4096)
def _types(op: Op, types: tuple[TensorType | None, ...]) -> tuple[TensorType, ...]:
    """What `Op.infer` says, kept: it depends on nothing but these, and a model's layers ask the same again."""
    op.require_operands(types)
    op.require_dtypes(types)
    return op.infer(*types)


class Rewriter:
    """Builds the new graph during `rewrite`: rules emit nodes and name what they want replaced."""

    def __init__(self, graph: Graph) -> None:
        self._nodes: list[Node] = []
        self._replaced: dict[Value | None, Value] = {}
        self._names: set[str] = set()
        self._makers: dict[Value, Node] = {}
        self._made_once: dict[Hashable, tuple[Value, ...]] = {}
        self.graph = graph
        """The graph as it was before."""

    def current(self, value: Value | None) -> Value | None:
        """What stands for an old value now."""
        while value in self._replaced:
            value = self._replaced[value]
        return value

    def up_to_date(self, node: Node) -> Node:
        """The node with its operands as they are now; itself where none was replaced."""
        if self._replaced.keys().isdisjoint(node.inputs):
            return node
        return replace(node, inputs=tuple([self.current(v) for v in node.inputs]))

    def maker(self, value: Value | None) -> Node | None:
        """The node already emitted that makes a value, if any."""
        return self._makers.get(value) if value is not None else None

    def emit(self, op: Op, inputs: Sequence[Value | None], like: Node, suffix: str = "") -> tuple[Value, ...]:
        """Add a node in front of the current place; its origin and its name come from the node `like`."""
        base = f"{like.outputs[0].name}.{suffix}" if suffix else like.outputs[0].name
        types = infer(op, inputs)
        outputs = tuple(Value(self._name(base, i), t) for i, t in enumerate(types))
        self.add(Node(op, tuple(inputs), outputs, like.origin))
        return outputs

    def remake(
        self, node: Node, op: Op, inputs: Sequence[Value | None] | None = None, /, **named: Value | None
    ) -> tuple[Value, ...]:
        """Add a node in place of another, under its names; results whose types are as before stay the same values.

        Operands are `inputs` with those `named` in their places. Without `inputs`, an operator of the node's own kind
        keeps the node's, and another kind has those named alone.
        """
        if inputs is None:
            inputs = node.inputs if type(op) is type(node.op) else ()
        operands = op.arrange(inputs, **named)
        types = infer(op, operands)
        outputs = tuple(v if v.type == t else Value(v.name, t) for v, t in zip(node.outputs, types, strict=True))
        self.add(Node(op, operands, outputs, node.origin))
        return outputs

    def once(self, op: Op, inputs: Sequence[Value | None], like: Node, suffix: str) -> tuple[Value, ...]:
        """The results of an operator on these operands, added the first time that they are asked for."""
        key = (op, *inputs)
        if key not in self._made_once:
            self._made_once[key] = self.emit(op, inputs, like, suffix)
        return self._made_once[key]

    def widen(self, node: Node, op: Op, inputs: Sequence[Value | None], suffix: str) -> tuple[Value, ...]:
        """Add a node in place of another that gives more results than it; those behind the node's are named anew."""
        types = infer(op, inputs)
        own = tuple(v if v.type == t else Value(v.name, t) for v, t in zip(node.outputs, types, strict=False))
        base = f"{node.outputs[0].name}.{suffix}"
        more = tuple(Value(self._name(base, i), t) for i, t in enumerate(types[len(own) :]))
        self.add(Node(op, tuple(inputs), (*own, *more), node.origin))
        return (*own, *more)

    def add(self, node: Node) -> None:
        """Add a finished node."""
        self._nodes.append(node)
        for value in node.outputs:
            self._makers[value] = node

    def _name(self, base: str, index: int) -> str:
        if not self._names:
            self._names.update(v.name for n in self.graph.nodes for v in n.outputs)
            self._names.update(v.name for v in self.graph.inputs)
        name = base if index == 0 else f"{base}.{index}"
        count = 1
        while name in self._names:
            count += 1
            name = f"{base}~{count}" if index == 0 else f"{base}.{index}~{count}"
        self._names.add(name)
        return name

    def replace(self, old: Value, new: Value) -> None:
        """Let every later reader of `old` read `new`."""
        if old is not new:
            self._replaced[old] = new

    def finish(self) -> Graph:
        """The new graph."""
        outputs: list[Output] = []
        for output in self.graph.outputs:
            value = self.current(output.value)
            if value is None:
                raise InternalError(f"output {output.name} was lost")
            outputs.append(Output(output.name, value))
        return replace(self.graph, nodes=tuple(self._nodes), outputs=tuple(outputs))


Rule = Callable[[Node, Rewriter], "Sequence[Value] | None"]


def rewrite(graph: Graph, rule: Rule) -> Graph:
    """Visit nodes in order.

    `rule` gets each node with up-to-date operands and returns the values that replace its results (having emitted what
    it needs), or None to keep the node.
    """
    rewriter = Rewriter(graph)
    changed = False
    for node in graph.nodes:
        current = rewriter.up_to_date(node)
        results = rule(current, rewriter)
        if results is None:
            rewriter.add(current)
            changed = changed or current is not node
            continue
        changed = True
        for old, new in zip(node.outputs, results, strict=True):
            rewriter.replace(old, new)
    return rewriter.finish() if changed else graph


def prune(graph: Graph) -> Graph:
    """Drop nodes whose results nobody reads."""
    needed: set[Value | None] = {output.value for output in graph.outputs}
    kept: list[Node] = []
    for node in reversed(graph.nodes):
        if not needed.isdisjoint(node.outputs):
            kept.append(node)
            needed.update(node.inputs)
    return graph if len(kept) == len(graph.nodes) else replace(graph, nodes=tuple(reversed(kept)))
