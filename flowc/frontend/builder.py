"""The graph of one phase under construction: operators, weights, inputs and outputs, caches.

It knows no stages. What stages leave for each other is in `state`; who runs them is `flowc.frontend.expand`.
"""

from __future__ import annotations

from typing import Any

from flowc.errors import Diagnostics, Span, nearest
from flowc.frontend.reporter import Failed, Reporter
from flowc.frontend.state import FlowState, Options
from flowc.frontend.tensors import Tensors
from flowc.frontend.usage import Usage
from flowc.ir.graph import Node, Value, constant, infer
from flowc.ir.op import Op
from flowc.ir.ports import CacheSlot, past_name, present_name, slots_of
from flowc.ir.types import BATCH, PAST, SEQUENCE, TOTAL, Dim, ShapeError, TensorType
from flowc.ir.weights.expressions import Tensor, Weight
from flowc.spec.includes import read_beside
from flowc.spec.spec import PORT_NAME, Phase, Spec

_BESIDE_IDS = frozenset({"attention_mask", "token_type_ids", "position_ids"})
"""Inputs of the same type as the ids of tokens, which stand beside them."""

MAX_PORTS = 10_000


class Builder:
    """One phase under construction, as stages see it."""

    def __init__(self, spec: Spec, phase: Phase, usage: Usage, options: Options, problems: Diagnostics) -> None:
        self.spec = spec
        self.phase: Phase = phase
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
            stated = next((d for d in self.spec.inputs if d.name == name), None)
            declared = stated.type if stated is not None else type_
            if declared is None:
                message = f"{self.what} reads the input '{name}', which is not declared"
                raise self.fail("undefined-input", message, hint=nearest(name, [d.name for d in self.spec.inputs]))
            if stated is not None and type_ is not None and self._in_phase(declared) != self._in_phase(type_):
                raise self.fail("bad-shape", f"the input '{name}' must be {type_}, not {declared}", stated.span)
            if len(self.inputs) >= MAX_PORTS:
                raise self.fail("too-large", f"{self.what}: the graph would have more than {MAX_PORTS} inputs")
            public = self.spec.public(name)
            self.inputs[name] = Value(public, self._in_phase(declared))
            self._usage.ports.add(name)
            self._taken.add(public)
        return self.inputs[name]

    def _in_phase(self, type_: TensorType) -> TensorType:
        shape = type_.shape
        if self.phase == "decode":
            shape = tuple(1 if d == SEQUENCE else d for d in shape)
        if self.phase in ("prefill", "encode"):
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
        first = self.spec.inputs[0] if self.spec.inputs else None
        if first is not None and first.name in _BESIDE_IDS:
            message = f"the flow would start from its first input, '{first.name}', in place of ids"
            raise self.fail("bad-value", message, first.span, "declare `input_ids` in front of it")
        ids = TensorType("int64", (BATCH, SEQUENCE))
        given = first is not None and not first.type.dtype.startswith("int")
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
        return self.phase in ("decode", "unified")

    def past(self, layer: int, slot: str, *shape: Dim) -> Value | None:
        """A cached tensor of a layer, `past_key_values.<layer>.<slot>`; None in a graph without past."""
        if not self.decoding:
            return None
        return self.input(past_name(layer, slot), TensorType("float32", shape))

    def past_keys(self, layer: int, kv_heads: int, head_dim: int, v_head_dim: int) -> tuple[Value | None, Value | None]:
        """The layer's cached keys and values, [batch, kv_heads, past, head_dim]."""
        key = self.past(layer, "key", BATCH, kv_heads, PAST, head_dim)
        return key, self.past(layer, "value", BATCH, kv_heads, PAST, v_head_dim)

    def present(self, layer: int, *, tap: bool = False, **slots: Value) -> None:
        """Hand a layer's state on as `present.<layer>.<slot>`; in the place of what a `tap` may have given."""
        for slot, value in slots.items():
            name = present_name(layer, slot)
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
