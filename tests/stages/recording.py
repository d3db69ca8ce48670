"""What stages do while a flow expands: which values they compute with, what they leave, which tensors they take."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, cast
from unittest import mock

from flowc.errors import Diagnostics
from flowc.frontend import phases
from flowc.frontend.builder import Builder
from flowc.frontend.expand import Expander
from flowc.frontend.stage import Stage, Stages
from flowc.frontend.state import FlowState, Options
from flowc.frontend.usage import Usage
from flowc.ir.core.positions import Positions
from flowc.ir.graph import Graph, Value
from flowc.ir.op import Op
from flowc.ir.types import Dim, TensorType
from flowc.ir.weights.expressions import Tensor
from flowc.spec.load import load
from flowc.stages import load_all
from flowc.text.source import Node

SLOTS = {
    "residual": "residual", "streams": "streams", "ropes": "rope", "ids": "ids", "biases": "bias",
    "token_mask": "attn_mask", "position_ids": "positions", "angles": "positions", "embedding": "embedding",
    "bound_layers": "decode",
}  # fmt: skip
"""What declarations call the fields of a flow's state."""
ON_DEMAND = ("position_ids", "angles")
"""Made by the first stage that asks: asking is reading. Who takes them away makes others of them, and writes."""


@dataclass(slots=True)
class Record:
    """One stage in one graph."""

    stage: Stage
    width: Dim | None
    """Channels of the active value."""
    reads: set[frozenset[str]] = field(default_factory=set[frozenset[str]])
    """Names of what it computes with; several for a value that it got under several."""
    writes: set[str] = field(default_factory=set[str])
    tensors: dict[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])
    embedding: str | None = None
    got: dict[int, frozenset[str]] = field(default_factory=dict[int, frozenset[str]])
    """Where the stage has its values from, by their identities."""

    def gets(self, value: object, name: str) -> None:
        """The stage looks at a value; it reads what it computes with."""
        self.got[id(value)] = self.got.get(id(value), frozenset[str]()) | {name}

    def uses(self, values: Iterable[object]) -> None:
        """The stage computes with values, or hands them on."""
        self.reads.update(self.got[id(v)] for v in values if id(v) in self.got)


class Log:
    """Records of the stages that are being expanded, the innermost last, and of those that are done."""

    def __init__(self) -> None:
        self.open: list[Record] = []
        self.done: list[Record] = []

    @property
    def now(self) -> Record:
        """The stage at work; a record of nobody between stages."""
        return self.open[-1] if self.open else Record(_NOBODY, None)


_NOBODY = Stage()


class _Slot(dict[str, Any]):
    """A field of the state that holds things by name."""

    def __init__(self, name: str, log: Log) -> None:
        super().__init__()
        self.name, self.log = name, log

    def __getitem__(self, key: str) -> Any:
        return self._seen(super().__getitem__(key))

    def get(self, key: str, default: Any = None) -> Any:
        return self._seen(super().get(key, default))

    def values(self) -> Any:
        return [self._seen(value) for value in super().values()]

    def __setitem__(self, key: str, value: Any) -> None:
        self.log.now.uses([value])
        if self.name not in ON_DEMAND:
            self.log.now.writes.add(SLOTS[self.name])
        super().__setitem__(key, value)

    def update(self, *given: Any, **named: Any) -> None:
        for key, value in dict[str, Any](*given, **named).items():
            self[key] = value

    def clear(self) -> None:
        self.log.now.writes.add(SLOTS[self.name])
        super().clear()

    def _seen(self, found: Any) -> Any:
        self._note(found)
        return found

    def _note(self, found: object) -> None:
        for value in cast("tuple[object, ...]", found) if isinstance(found, tuple) else (found,):
            if isinstance(value, Value):
                self.log.now.gets(value, SLOTS[self.name])
            elif value is not None:
                self.log.now.reads.add(frozenset({SLOTS[self.name]}))


class _State(FlowState):
    """A flow's state that tells who reads and writes it."""

    def __init__(self, log: Log) -> None:
        object.__setattr__(self, "_log", log)
        for slot in fields(FlowState):
            made = slot.default_factory() if callable(slot.default_factory) else slot.default
            object.__setattr__(self, slot.name, _Slot(slot.name, log) if isinstance(made, dict) else made)

    def __getattribute__(self, name: str) -> Any:
        found = object.__getattribute__(self, name)
        if name in SLOTS and found is not None and not isinstance(found, _Slot):
            now: Record = object.__getattribute__(self, "_log").now
            value = getattr(found, "value", found)  # a residual holds one
            if isinstance(value, Value):
                now.gets(value, SLOTS[name])
            else:
                now.reads.add(frozenset({SLOTS[name]}))
                now.embedding = found if name == "embedding" else now.embedding
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        now: Record = object.__getattribute__(self, "_log").now
        now.uses([getattr(value, "value", value)])
        if name not in ON_DEMAND or value is None:
            now.writes.add(SLOTS[name])
        if name in ON_DEMAND:
            now.gets(value, SLOTS[name])
        object.__setattr__(self, name, value)


class _Builder(Builder):
    """A builder that keeps a log."""

    def __init__(self, *given: Any, log: Log) -> None:
        super().__init__(*given)
        self.log = log
        self.state = _State(log)

    def emit(self, op: Op, *inputs: Value | None, name: str = "") -> tuple[Value, ...]:
        if not isinstance(op, Positions):  # what is made on demand reads for itself
            self.log.now.uses(inputs)
        return super().emit(op, *inputs, name=name)

    def tensor(self, name: str, *sizes: Dim | None, at: str = "") -> Tensor:
        found = super().tensor(name, *sizes, at=at)
        self.log.now.tensors[name] = found.shape
        return found

    def _gets(self, found: Value, name: str) -> Value:
        self.log.now.gets(found, name)
        return found

    def input(self, name: str, type_: TensorType | None = None) -> Value:
        return self._gets(super().input(name, type_), "input")

    def tokens(self) -> Value:
        with mock.patch.object(self, "input", super().input):
            found = super().tokens()
        return self._gets(found, "tokens")

    def attention_mask(self) -> Value | None:
        with mock.patch.object(self, "input", super().input):
            found = super().attention_mask()
        return None if found is None else self._gets(found, "attention_mask")

    def past(self, layer: int, slot: str, *shape: Dim) -> Value | None:
        with mock.patch.object(self, "input", super().input):
            found = super().past(layer, slot, *shape)
        return None if found is None else self._gets(found, "cache")

    def present(self, layer: int, *, tap: bool = False, **slots: Value) -> None:
        self.log.now.uses(slots.values())
        self.log.now.writes.add("cache")
        super().present(layer, tap=tap, **slots)

    def hand_over(self, layer: int, **slots: Value) -> None:
        self.log.now.uses(slots.values())
        self.log.now.writes.add("cross cache")
        super().hand_over(layer, **slots)

    def taken(self, component: str, layer: int, slot: str, *shape: Dim | None) -> Value:
        with mock.patch.object(self, "input", super().input):
            found = super().taken(component, layer, slot, *shape)
        return self._gets(found, "cross cache")

    def output(self, name: str, value: Value) -> None:
        self.log.now.uses([value])
        self.log.now.writes.add("output")
        super().output(name, value)


class _Expander(Expander):
    """An expander that opens a record for each stage."""

    def __init__(self, *given: Any, log: Log) -> None:
        super().__init__(*given)
        self.log = log

    def run(self, stages: Stages | Sequence[Node], x: Value, label: str = "", **indices: int) -> Value:
        self.log.now.uses([x])
        return super().run(stages, x, label, **indices)

    def perform(self, stage: Stage, x: Value) -> Value:
        self.log.open.append(record := Record(stage, x.shape[-1] if x.shape else None))
        record.gets(x, "active")
        try:
            y = super().perform(stage, x)
        finally:
            self.log.open.pop()
        if y is not x:
            record.uses([y])
            record.writes.add("active")
        self.log.done.append(record)
        return y


def recorded(path: Path, options: Options) -> list[Record]:
    """What the stages of a spec do in all of its graphs; of those that expand."""
    load_all()
    found: list[Record] = []
    spec = load(path, problems := Diagnostics())
    before: dict[str, Graph] = {}
    for step in phases.steps(spec, ()):
        log = Log()
        with (
            mock.patch.object(phases, "Builder", partial(_Builder, log=log)),
            mock.patch.object(phases, "Expander", partial(_Expander, log=log)),
        ):
            graph = phases.expand(spec, step.phase, Usage(), options, problems, step.component, before)
            if graph is not None:
                found += log.done
                before[graph.component] = graph
    return found
