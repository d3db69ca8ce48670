"""Stages become core operators: one flow, one graph per phase.

The hidden state of a flow (rope tables, residual, streams, cache bindings) is held here while a phase is expanded and
leaves as plain SSA values. Everything that a stage may do to the graph under construction is a method of `Expansion`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from math import prod
from typing import Any

from flowc.errors import Diagnostics, InternalError, Span, WeightsError, nearest
from flowc.frontend.bind import Bound, bind
from flowc.frontend.stage import Stage, Stages
from flowc.frontend.state import Failed, Options, Rope, Slots
from flowc.frontend.usage import TensorUse, Usage
from flowc.ir.core.positions import Positions
from flowc.ir.core.rope import RopeAngles
from flowc.ir.graph import Node, Origin, Value, constant, infer
from flowc.ir.op import Op
from flowc.ir.types import BATCH, PAST, SEQUENCE, TOTAL, Dim, ShapeError, TensorType
from flowc.ir.weights.expressions import Tensor, Weight
from flowc.spec.includes import read_beside
from flowc.spec.spec import PORT_NAME, Phase, Spec
from flowc.text.source import Node as SpecNode

MAX_STAGES = 20_000
"""Stages of a phase, repeats written out: ten times what the deepest models need in the smallest parts."""

_CONSEQUENCES = frozenset(
    {
        "bad-shape", "conflicting-shapes", "misshapen-weight", "residual-twice", "undefined-rope", "undefined-slot",
        "unknown-size",
    }
)  # fmt: skip
"""What a stage may seem to do wrong because one before it failed."""

_BESIDE_IDS = frozenset({"attention_mask", "token_type_ids", "position_ids"})
"""Inputs of the same type as the ids of tokens, which stand beside them."""

MAX_PORTS = 10_000
MAX_TENSOR_BYTES = 2**40


class Expansion:
    """One phase under construction, as stages see it."""

    def __init__(self, spec: Spec, phase: Phase, usage: Usage, options: Options, problems: Diagnostics) -> None:
        self.spec = spec
        self.phase: Phase = phase
        self.usage = usage
        self.options = options
        self.problems = problems
        self.slots = Slots()
        self.inputs: dict[str, Value] = {}
        self.outputs: dict[str, Value] = {}
        self.nodes: list[Node] = []
        self.facts: dict[str, Any] = {}
        self._path: list[str] = []
        self._bound: Bound | None = None
        self._taken: set[str] = set()
        self._constants: dict[str, Value] = {}
        self._indices: dict[str, int] = {}
        self._count = 0
        self._failed = False
        self._cached: set[str] = set()
        self._tapped: set[str] = set()

    # The graph under construction

    @property
    def origin(self) -> Origin:
        """Provenance of what is emitted now."""
        bound = self._bound
        return Origin(".".join(self._path), bound.stage.kind if bound else "", bound.span if bound else None)

    def emit(self, op: Op, *inputs: Value | None, name: str = "") -> tuple[Value, ...]:
        """Add an operator; results are named `<stage path>.<name>`. Raises Failed when shapes do not fit."""
        operands = list(inputs)
        while operands and operands[-1] is None:
            operands.pop()
        try:
            types = infer(op, operands)
        except ShapeError as e:
            raise self.fail("bad-shape", f"{self._what()}: {e}") from None
        base = ".".join([*self._path, name or op.name])
        outputs = tuple(Value(self._fresh(base if i == 0 else f"{base}.{i}"), t) for i, t in enumerate(types))
        self.nodes.append(Node(op, tuple(operands), outputs, self.origin))
        return outputs

    def op(self, op: Op, *inputs: Value | None, name: str = "") -> Value:
        """Add an operator with one result."""
        (value,) = self.emit(op, *inputs, name=name)
        return value

    def constant(self, weight: Weight) -> Value:
        """A constant operand; the same expression gives the same value."""
        return self._constants.setdefault(weight.key, constant(weight))

    def require_rank(self, x: Value, rank: int) -> None:
        """Raise Failed unless a value has so many dimensions; for stages that take a shape apart."""
        if len(x.shape) != rank:
            raise self.fail("bad-shape", f"{self._what()} takes a value of {rank} dimensions, not {x.type}")

    def require_tokens(self, x: Value) -> None:
        """Raise Failed unless a value has a row per new token, as what a cache keeps must."""
        tokens = self.tokens()
        if x.shape[:2] != tokens.shape[:2]:
            message = f"{self._what()} keeps a cache of every new token, and gets {x.type} for {tokens.type}"
            raise self.fail("bad-shape", message, hint="`gather_last_token` comes after the last such stage")

    def require_whole(self) -> None:
        """Raise Failed in a graph with a past, whose new tokens are not the whole sequence."""
        if self.decoding:
            message = f"{self._what()} looks at the whole sequence; the '{self.phase}' graph gets its newest tokens"
            raise self.fail("wrong-phase", message, hint="`kind: encoder`, or a flow of its own under `prefill:`")

    def require_sequence(self) -> Value:
        """The tokens that the flow starts from; Raises Failed where those are images, which have no sequence yet."""
        tokens = self.tokens()
        if tokens.type.rank > 3:
            raise self.fail("bad-shape", f"{self._what()} counts tokens, and the flow starts from {tokens.type}")
        return tokens

    def weight(self, name: str, *sizes: Dim | None, at: str = "") -> Value:
        """A tensor of the checkpoint as a constant, its shape checked against `sizes` (None: whatever the file says).

        `at` is the stage's field that the name came from, for the place of an error.
        """
        return self.constant(self.tensor(name, *sizes, at=at))

    def tensor(self, name: str, *sizes: Dim | None, at: str = "") -> Tensor:
        """A tensor of the checkpoint as an expression; see `weight`."""
        if not name:
            raise self.fail("bad-value", f"{self._what()}: the name of a weight is empty", self.place(at))
        if any(isinstance(s, str) for s in sizes):
            raise self.fail("bad-shape", f"{self._what()}: weight '{name}' would need the symbolic shape {list(sizes)}")
        shape = self._shape(name, tuple(s if isinstance(s, int) else None for s in sizes), self.place(at))
        if prod(shape) * 4 > MAX_TENSOR_BYTES:
            raise self.fail("too-large", f"{self._what()}: weight '{name}' {list(shape)} is larger than 1 TiB")
        self.usage.tensors.setdefault(name, TensorUse(shape, self.origin))
        return Tensor(name, shape)

    def _shape(self, name: str, sizes: tuple[int | None, ...], span: Span | None) -> tuple[int, ...]:
        believed = tuple(s if s is not None else 1 for s in sizes)
        needs = f"{self._what()} needs the weight '{name}' {_shape_text(sizes)}"
        shapes = self.usage.shapes
        if shapes is None:
            return self._believed(name, sizes, span)
        found = shapes.get(name)
        if found is None:
            message = f"{needs}, which the file does not have"
            self.problems.error("missing-weight", message, span, nearest(name, shapes), kind=WeightsError)
            return believed
        if not _fits(found, sizes):
            if not self._failed:
                message = f"{needs}, the file has {list(found)}"
                self.problems.error("misshapen-weight", message, span, kind=WeightsError)
            return believed
        return found

    def _believed(self, name: str, sizes: tuple[int | None, ...], span: Span | None) -> tuple[int, ...]:
        """The shape of a tensor that no file tells: what its first use said."""
        known = self.usage.tensors.get(name)
        if known is not None:
            shape, origin = known
            if _fits(shape, sizes):
                return shape
            note = (f"stage '{origin.kind}' takes it as {list(shape)}", origin.span)
            message = f"{self._what()} takes the weight '{name}' as {_shape_text(sizes)}, and another stage differently"
            raise self.fail("conflicting-shapes", message, span, notes=(note,))
        if None in sizes and self.usage.unreadable:
            raise Failed
        if None in sizes:
            raise self.fail(
                "unknown-size", f"{self._what()}: the shape {_shape_text(sizes)} of weight '{name}' is not known",
                span, "give the size in the stage or in `model:`, or a weights file to read it from",
            )  # fmt: skip
        return tuple(s for s in sizes if s is not None)

    def read_beside(self, name: str, limit: int) -> str:
        """The text of a file in the spec's folder or below, of at most `limit` bytes; raises ValueError."""
        self.usage.included[name] = read_beside(self.spec.path.parent, name, limit)
        return self.usage.included[name]

    def has_weight(self, name: str) -> bool:
        """Whether the checkpoint holds a tensor; True when there is no checkpoint to ask."""
        return self.usage.shapes is None or name in self.usage.shapes

    def size_of(self, name: str, axis: int) -> int | None:
        """Size of a tensor's axis as the file has it; None when there is no file or no such tensor."""
        shape = (self.usage.shapes or {}).get(name)
        return shape[axis] if shape is not None and axis < len(shape) else None

    def input(self, name: str, kind: TensorType | None = None) -> Value:
        """A graph input, declared by the spec or made now with the given type, which a declaration must agree with."""
        if name not in self.inputs:
            stated = next((d for d in self.spec.inputs if d.name == name), None)
            declared = stated.type if stated is not None else kind
            if declared is None:
                hint = nearest(name, [d.name for d in self.spec.inputs])
                raise self.fail(
                    "undefined-input", f"{self._what()} reads the input '{name}', which is not declared", hint=hint
                )
            if stated is not None and kind is not None and self._for_phase(declared) != self._for_phase(kind):
                message = f"the input '{name}' must be {kind}, not {declared}"
                raise self.fail("bad-shape", message, stated.span)
            if len(self.inputs) >= MAX_PORTS:
                raise self.fail("too-large", f"{self._what()}: the graph would have more than {MAX_PORTS} inputs")
            public = self.spec.public(name)
            self.inputs[name] = Value(public, self._for_phase(declared))
            self.usage.ports.add(name)
            self._taken.add(public)
        return self.inputs[name]

    def _for_phase(self, kind: TensorType) -> TensorType:
        shape = kind.shape
        if self.phase == "decode":
            shape = tuple(1 if d == SEQUENCE else d for d in shape)
        if self.phase in ("prefill", "encode"):
            shape = tuple(SEQUENCE if d == TOTAL else d for d in shape)
        return TensorType(kind.dtype, shape)

    def output(self, name: str, value: Value) -> None:
        """Make a value a graph output."""
        if not PORT_NAME.fullmatch(name):
            raise self.fail("bad-value", f"{self._what()}: '{name}' cannot be the name of an output")
        if name in self.outputs:
            raise self.fail("duplicate-output", f"{self._what()} makes the output '{name}' a second time")
        self.outputs[name] = value

    # Tokens, padding, positions, caches

    @property
    def decoding(self) -> bool:
        """Whether graphs of this phase take a past."""
        return self.phase in ("decode", "unified")

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

    def position_ids(self) -> Value:
        """Positions of the new tokens, int64 [batch, sequence]; made once per graph."""
        found = self.slots.named.get("position_ids")
        if found is None:
            past = next((v for n, v in self.inputs.items() if n.endswith(".key")), None)
            mask = self.slots.named.get("attn_mask") or self.attention_mask()
            if mask is None and past is None and self.decoding:
                message = f"{self._what()} asks for positions before any attention has a cache to count on from"
                raise self.fail("undefined-slot", message, hint="build it without --assume no-padding")
            found = self.op(
                Positions(), self.require_sequence(), mask, None if mask is not None else past, name="position_ids"
            )
            self.slots.named["position_ids"] = found
        return found

    def add_rope(self, name: str, rope: Rope) -> None:
        """Keep a rope under a name that attention stages use."""
        if name in self.slots.ropes:
            message = f"the rope '{name}' is made a second time"
            raise self.fail("duplicate-rope", message, hint="give it another `name`")
        self.slots.ropes[name] = rope

    def rope_angles(self, name: str, at: str = "rope") -> tuple[Value, Value]:
        """Cosine and sine of a named rope at the new tokens' positions; made once per graph."""
        rope = self.slots.ropes.get(name)
        if rope is None:
            hint = nearest(name, self.slots.ropes) or "a `rope_tables` stage must come first"
            raise self.fail("undefined-rope", f"{self._what()} uses the rope '{name}', which no stage has made",
                            self.place(at), hint)  # fmt: skip
        if rope.angles is None:
            if rope.facts is None:
                raise InternalError(f"the rope '{name}' has neither facts nor angles")
            cos, sin = self.emit(RopeAngles(rope.facts), self.position_ids(), name=f"angles_{name}")
            rope.angles = (cos, sin)
        return rope.angles

    def past(self, layer: int, slot: str, *shape: Dim) -> Value | None:
        """A cached tensor of a layer, `past_key_values.<layer>.<slot>`; None in a graph without past."""
        if not self.decoding:
            return None
        return self.input(f"past_key_values.{layer}.{slot}", TensorType("float32", shape))

    def past_keys(self, layer: int, kv_heads: int, head_dim: int, v_head_dim: int) -> tuple[Value | None, Value | None]:
        """The layer's cached keys and values, [batch, kv_heads, past, head_dim]."""
        key = self.past(layer, "key", BATCH, kv_heads, PAST, head_dim)
        return key, self.past(layer, "value", BATCH, kv_heads, PAST, v_head_dim)

    def present(self, layer: int, *, tap: bool = False, **slots: Value) -> None:
        """Hand a layer's state on as `present.<layer>.<slot>`; in the place of what a `tap` may have given."""
        for slot, value in slots.items():
            name = f"present.{layer}.{slot}"
            if tap and name not in self._tapped:
                self._tapped.add(name)
                self.outputs.setdefault(name, value)
                continue
            if tap or name in self._cached:
                hint = "each stage with a cache needs a `layer` of its own"
                raise self.fail("duplicate-cache", f"{self._what()} writes the cache of layer {layer} again", hint=hint)
            self._cached.add(name)
            self.outputs[name] = value

    def layer_index(self, stage: Stage, name: str) -> int:
        """A layer's index in the model: the stage's `layer`, or the last whole number in a weight name."""
        given = getattr(stage, "layer", None)
        if given is not None:
            return given
        numbers = re.findall(r"(?<![\w])\d+(?![\w])", name)
        if not numbers:
            raise self.fail("missing-field", f"{self._what()} needs `layer:`, since '{name}' holds no layer number")
        return int(numbers[-1])

    # Running stages

    def run(self, stages: Stages | Sequence[SpecNode], x: Value, label: str = "", **indices: int) -> Value:
        """Expand a list of stages in order; `indices` are visible to them as `$name` and `{name}`."""
        outer, outer_bound = dict(self._indices), self._bound
        self._indices.update(indices)
        depth = len(self._path)
        self._count += 1
        self.expect_stages(0)
        if label:
            self._path.append(label)
        counts: dict[str, int] = {}
        failed = False
        for node in stages.items if isinstance(stages, Stages) else stages:
            self._count += 1
            self.expect_stages(0)
            bound = bind(node, self.spec, self.usage, self._indices, self.problems)
            if bound is None:
                failed = self._failed = True
                continue
            kind = bound.stage.kind
            counts[kind] = counts.get(kind, 0) + 1
            self._path.append(kind if counts[kind] == 1 else f"{kind}_{counts[kind]}")
            self._bound = bound
            try:
                x = bound.stage.expand(self, x)
            except Failed:
                failed = self._failed = True
            self._path.pop()
        del self._path[depth:]
        self._indices, self._bound = outer, outer_bound
        if failed:
            raise Failed
        return x

    def expect_stages(self, count: int) -> None:
        """End the expansion of a flow that is about to run too many stages more."""
        if self._count + count > MAX_STAGES:
            message = f"the flow has more than {MAX_STAGES} stages when its repeats are written out"
            self.problems.error("too-many-stages", message, self._bound.span if self._bound else None)
            self.problems.raise_all()

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
        if not (self._failed and code in _CONSEQUENCES):
            place = span or (self._bound.span if self._bound else None)
            self.problems.error(code, message, place, hint, notes=notes)
        return Failed()

    def place(self, field_name: str) -> Span | None:
        """Where a field of the current stage stands in the spec; the stage itself when it does not."""
        bound = self._bound
        return (bound.spans.get(field_name) or bound.span) if bound else None

    def _what(self) -> str:
        return f"stage '{self._bound.stage.kind}'" if self._bound else "the flow"

    def _fresh(self, base: str) -> str:
        name, count = base, 1
        while name in self._taken:
            count += 1
            name = f"{base}~{count}"
        self._taken.add(name)
        return name


def _fits(shape: Sequence[int], sizes: Sequence[int | None]) -> bool:
    """Whether a shape is what was asked for; None fits any size."""
    return len(shape) == len(sizes) and all(s in (None, n) for s, n in zip(sizes, shape, strict=True))


def _shape_text(sizes: Sequence[int | None]) -> str:
    return f"[{', '.join('?' if s is None else str(s) for s in sizes)}]"
