"""The graph of one phase under construction: operators, weights, inputs and outputs, caches.

It knows no stages. What stages leave for each other is in `state`; who runs them is `flowc.frontend.expand`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowc.errors import Diagnostics, Span, nearest
from flowc.frontend.reporter import Failed, Reporter
from flowc.frontend.state import FlowState, Options
from flowc.frontend.tensors import Tensors
from flowc.frontend.usage import Usage
from flowc.ir.graph import Graph, Node, Value, constant, infer
from flowc.ir.op import Op
from flowc.ir.phases import Phase
from flowc.ir.ports import CacheSlot, past_name, present_name, slots_of
from flowc.ir.types import BATCH, PAST, SEQUENCE, TOTAL, Dim, ShapeError, TensorType
from flowc.ir.weights.expressions import Tensor, Weight
from flowc.spec.components import Component, InputDecl
from flowc.spec.includes import read_beside
from flowc.spec.spec import PORT_NAME, Spec

_BESIDE_IDS = frozenset({"attention_mask", "token_type_ids", "position_ids"})
"""Inputs of the same type as the ids of tokens, which stand beside them."""

MAX_PORTS = 10_000


class Builder:
    """One phase under construction, as stages see it."""

    def __init__(
        self,
        spec: Spec,
        phase: Phase,
        usage: Usage,
        options: Options,
        problems: Diagnostics,
        component: Component | None = None,
        before: Mapping[str, Graph] | None = None,
    ) -> None:
        """Begin a graph of a component (the main one); `before` are the graphs of those before it, by name."""
        self.spec = spec
        self.component = component or spec.main
        self.before = before or {}
        self.connections: dict[str, str] = {}
        """Inputs that other components' ports are joined to."""
        self._scope = f"{self.component.name}." if any(g.caches for g in self.before.values()) else ""
        self.phase = phase
        self.options = options
        self.reporter = Reporter(problems)
        self.state = FlowState()
        self.state.keep_ledger(usage, self.reporter)
        self.inputs: dict[str, Value] = {}
        self.outputs: dict[str, Value] = {}
        self.nodes: list[Node] = []
        self.facts: dict[str, Any] = {}
        self._usage = usage
        self._tensors = Tensors(usage, self.reporter)
        self._taken: set[str] = set()
        self._constants: dict[str, Value] = {}
        self._cached: set[str] = set()
        self._tapped: set[str] = set()

    # Operators

    def emit(self, op: Op, *inputs: Value | None, name: str = "") -> tuple[Value, ...]:
        """Add an operator; results are named `<stage path>.<name>`. Raises Failed when shapes do not fit."""
        operands = list(inputs)
        while operands and operands[-1] is None:
            operands.pop()
        try:
            types = infer(op, operands)
        except ShapeError as e:
            raise self.fail("bad-shape", f"{self.what}: {e}") from None
        site = self.reporter.site
        base = ".".join([*site.path, name or op.name])
        outputs = tuple(Value(self._fresh(base if i == 0 else f"{base}.{i}"), t) for i, t in enumerate(types))
        self.nodes.append(Node(op, tuple(operands), outputs, site.origin))
        return outputs

    def op(self, op: Op, *inputs: Value | None, name: str = "") -> Value:
        """Add an operator with one result."""
        (value,) = self.emit(op, *inputs, name=name)
        return value

    def _fresh(self, base: str) -> str:
        name, count = base, 1
        while name in self._taken:
            count += 1
            name = f"{base}~{count}"
        self._taken.add(name)
        return name

    # Weights

    def constant(self, weight: Weight) -> Value:
        """A constant operand; the same expression gives the same value."""
        return self._constants.setdefault(weight.key, constant(weight))

    def weight(self, name: str, *sizes: Dim | None, at: str = "") -> Value:
        """A tensor of the checkpoint as a constant, its shape checked against `sizes` (None: whatever the file says).

        `at` is the stage's field that the name came from, for the place of an error.
        """
        return self.constant(self.tensor(name, *sizes, at=at))

    def tensor(self, name: str, *sizes: Dim | None, at: str = "") -> Tensor:
        """A tensor of the checkpoint as an expression; see `weight`."""
        return self._tensors.tensor(name, sizes, at)

    def has_weight(self, name: str) -> bool:
        """Whether the checkpoint holds a tensor; True when there is no checkpoint to ask."""
        return self._tensors.has(name)

    def size_of(self, name: str, axis: int) -> int | None:
        """Size of a tensor's axis as the file has it; None when there is no file or no such tensor."""
        return self._tensors.size_of(name, axis)

    def read_beside(self, name: str, limit: int) -> str:
        """The text of a file in the spec's folder or below, of at most `limit` bytes; raises ValueError."""
        self._usage.included[name] = read_beside(self.spec.path.parent, name, limit)
        return self._usage.included[name]

    # Inputs and outputs

    def input(self, name: str, type_: TensorType | None = None) -> Value:
        """A graph input, declared by the spec or made now with the given type, which a declaration must agree with."""
        if name not in self.inputs:
            stated = next((d for d in self.component.inputs if d.name == name), None)
            declared = type_ if stated is None else self._declared(stated)
            if declared is None:
                message = f"{self.what} reads the input '{name}', which is not declared"
                raise self.fail("undefined-input", message, hint=nearest(name, [d.name for d in self.component.inputs]))
            if stated is not None and type_ is not None and self._in_phase(declared) != self._in_phase(type_):
                raise self.fail("bad-shape", f"the input '{name}' must be {type_}, not {declared}", stated.span)
            if len(self.inputs) >= MAX_PORTS:
                raise self.fail("too-large", f"{self.what}: the graph would have more than {MAX_PORTS} inputs")
            public = self.spec.public(name)
            self.inputs[name] = Value(public, self._in_phase(declared))
            self._usage.port(self.component.name, name)
            self._taken.add(public)
        return self.inputs[name]

    def _declared(self, stated: InputDecl) -> TensorType:
        """The type of a declared input; of a connected one, that of the port that it is joined to."""
        if stated.connection is None:
            assert stated.type is not None, "an input has a type or is connected"
            return stated.type
        component, port = stated.connection.component, stated.connection.port
        graph = self._earlier(component, stated.span)
        ports = {v.name: v for v in graph.inputs} | {o.name: o.value for o in graph.outputs}
        if port not in ports:
            hint = nearest(port, ports) or f"it has {', '.join(list(ports)[:8])}"
            message = f"component '{component}' has no input or output '{port}'"
            raise self.fail("unknown-port", message, stated.span, hint)
        self.connections[stated.name] = str(stated.connection)
        return graph.port_type(ports[port])

    def _earlier(self, component: str, span: Span | None = None) -> Graph:
        """The graph of a component that comes before this one."""
        if component not in self.before:
            known = f"it can take from {', '.join(self.before)}" if self.before else "no component stands before it"
            message = f"{self.component.what} takes from '{component}', which is no component before it"
            raise self.fail("unknown-component", message, span, nearest(component, self.before) or known)
        return self.before[component]

    def _in_phase(self, type_: TensorType) -> TensorType:
        shape = type_.shape
        if self.phase.tokens == "one":
            shape = tuple(1 if d == SEQUENCE else d for d in shape)
        if not self.phase.takes_past:
            shape = tuple(SEQUENCE if d == TOTAL else d for d in shape)
        return TensorType(type_.dtype, shape)

    def output(self, name: str, value: Value) -> None:
        """Make a value a graph output."""
        if not PORT_NAME.fullmatch(name):
            raise self.fail("bad-value", f"{self.what}: '{name}' cannot be the name of an output")
        if name in self.outputs:
            raise self.fail("duplicate-output", f"{self.what} makes the output '{name}' a second time")
        self.outputs[name] = value

    def tokens(self) -> Value:
        """The first declared input: what the flow starts from. Integers are the ids of tokens."""
        first = self.component.inputs[0] if self.component.inputs else None
        if first is not None and first.name in _BESIDE_IDS:
            message = f"the flow would start from its first input, '{first.name}', in place of ids"
            raise self.fail("bad-value", message, first.span, "declare `input_ids` in front of it")
        ids = TensorType("int64", (BATCH, SEQUENCE))
        given = first is not None and (first.type is None or not first.type.dtype.startswith("int"))
        return self.input(first.name if first else "input_ids", None if given else ids)

    def attention_mask(self) -> Value | None:
        """int64 [batch, total], 1 where a token is not padding; None under `--assume no-padding`."""
        if self.options.assume == "no-padding":
            return None
        return self.input("attention_mask", TensorType("int64", (BATCH, TOTAL)))

    # Caches

    @property
    def decoding(self) -> bool:
        """Whether graphs of this phase take a past."""
        return self.phase.takes_past

    def past(self, layer: int, slot: str, *shape: Dim) -> Value | None:
        """A cached tensor of a layer, `past_key_values.<layer>.<slot>`; None in a graph without past.

        Beside the caches of other components `<slot>` begins with the name of this one.
        """
        if not self.decoding:
            return None
        return self.input(past_name(layer, self._scope + slot), TensorType("float32", shape))

    def past_keys(self, layer: int, kv_heads: int, head_dim: int, v_head_dim: int) -> tuple[Value | None, Value | None]:
        """The layer's cached keys and values, [batch, kv_heads, past, head_dim]."""
        key = self.past(layer, "key", BATCH, kv_heads, PAST, head_dim)
        return key, self.past(layer, "value", BATCH, kv_heads, PAST, v_head_dim)

    @property
    def past_columns(self) -> Value | None:
        """A cached tensor with a column for each token before the new ones; None where no stage has asked for one."""
        names = {slot.past for slot in self.caches() if slot.has_columns} - self.connections.keys()
        return next((value for value in self.inputs.values() if value.name in names), None)

    def present(self, layer: int, *, tap: bool = False, **slots: Value) -> None:
        """Hand a layer's state on as `present.<layer>.<slot>`; in the place of what a `tap` may have given."""
        for slot, value in slots.items():
            name = present_name(layer, self._scope + slot)
            if tap and name not in self._tapped:
                self._tapped.add(name)
                self.outputs.setdefault(name, value)
                self._usage.used(self.reporter.site.span)  # a layer that hands out the same cache takes its place
                continue
            if tap or name in self._cached:
                hint = "each stage with a cache needs a `layer` of its own"
                raise self.fail("duplicate-cache", f"{self.what} writes the cache of layer {layer} again", hint=hint)
            self._cached.add(name)
            self.outputs[name] = value

    def hand_over(self, layer: int, **slots: Value) -> None:
        """Give what later components read of a layer, made once: `present.<layer>.<component>.<slot>`."""
        if self.component.main:
            message = f"{self.what} makes what a later component reads, and none comes after {self.component.what}"
            raise self.fail("unconnected-cache", message)
        for slot, value in slots.items():
            name = present_name(layer, f"{self.component.name}.{slot}")
            if name in self._cached:
                hint = "each stage with a cache needs a `layer` of its own"
                raise self.fail("duplicate-cache", f"{self.what} writes the cache of layer {layer} again", hint=hint)
            self._cached.add(name)
            self.outputs[name] = value

    def taken(self, component: str, layer: int, slot: str, *shape: Dim | None) -> Value:
        """What an earlier component handed over of a layer, checked against `shape` (None: whatever it is)."""
        graph, past = self._earlier(component), past_name(layer, f"{component}.{slot}")
        given = {s.present: s for s in graph.caches}
        port = present_name(layer, f"{component}.{slot}")
        if port not in given:
            hint = f"it has {', '.join(s.present or '' for s in graph.caches[:4])}" if graph.caches else ""
            message = f"{self.what} reads '{port}' of component '{component}', which does not hand it over"
            raise self.fail("unconnected-cache", message, hint=hint)
        type_ = graph.port_type(next(o.value for o in graph.outputs if o.name == port))
        if any(want not in (None, found) for want, found in zip(shape, type_.shape, strict=True)):
            sizes = ", ".join("any" if d is None else str(d) for d in shape)
            raise self.fail("bad-shape", f"{self.what} needs [{sizes}] of component '{component}', which gives {type_}")
        self.connections[past] = f"{component}.{port}"
        return self.input(past, type_)

    def caches(self) -> tuple[CacheSlot, ...]:
        """The states of all layers, with the names that their ports have in the graph."""
        return slots_of(self.inputs, self.outputs, self.spec.public)

    # What is wrong

    @property
    def what(self) -> str:
        """How a message begins that is about the current stage."""
        return self.reporter.site.what

    def fail(
        self,
        code: str,
        message: str,
        span: Span | None = None,
        hint: str = "",
        *,
        notes: tuple[tuple[str, Span | None], ...] = (),
    ) -> Failed:
        """Collect an error at the current stage; raise what it returns."""
        return self.reporter.fail(code, message, span, hint, notes=notes)

    def place(self, field_name: str) -> Span | None:
        """Where a field of the current stage stands in the spec; the stage itself when it does not."""
        return self.reporter.site.place(field_name)
