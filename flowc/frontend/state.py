"""What the expansion of a flow holds: the build's options and the flow's hidden state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from flowc.errors import Span
from flowc.frontend.reporter import Reporter
from flowc.frontend.usage import Usage
from flowc.ir.graph import Value
from flowc.ir.rope import RopeFacts

T = TypeVar("T")

Assume = Literal["none", "right-padding", "no-padding"]
Cache = Literal["aligned", "static", "compact"]
"""How a decoder's cache lies: see docs/decoders.md."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a build asks of the graphs, beyond the spec."""

    assume: Assume = "none"
    logits: Literal["last", "all"] = "last"
    context: int | None = None
    cache: Cache | None = None
    """None: aligned, or compact with right padding."""


@dataclass(frozen=True, slots=True)
class Residual:
    """A value that was saved to be added later, and the stage that saved it."""

    value: Value
    span: Span | None


@dataclass(slots=True)
class Rope:
    """A named rope: its facts, and its angles once a stage of this graph has asked for them.

    A rope of places that are no token positions (patches of an image) has angles from the start, and no facts.
    """

    facts: RopeFacts | None
    angles: tuple[Value, Value] | None = None
    interleaved: bool = False
    head_dim: int | None = None
    """Channels of the heads that it is for; None where only the channels that turn are known."""


class Slots(dict[str, T]):
    """Values by name that stages leave for those that follow: who left each, and whether anybody asked for it."""

    def __init__(self, usage: Usage, reporter: Reporter) -> None:
        super().__init__()
        self._usage, self._reporter = usage, reporter
        self._made: dict[str, Span] = {}

    def __setitem__(self, name: str, value: T) -> None:
        super().__setitem__(name, value)
        origin = self._reporter.site.origin
        if origin.span is not None:
            self._made[name] = origin.span
            self._usage.stages.setdefault(origin.span, origin)

    def __getitem__(self, name: str) -> T:
        self._asked(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a name, or the default."""
        self._asked(name)
        return super().get(name, default)

    def own(self, name: str) -> T:
        """What the stage that asks has left itself, which does not count as a use."""
        return super().__getitem__(name)

    def leave(self, values: Mapping[str, T]) -> None:
        """Leave several values."""
        for name, value in values.items():
            self[name] = value

    def _asked(self, name: str) -> None:
        if name in self._made:
            self._usage.live.add(self._made[name])


class FlowState:
    """What stages of one phase leave for those that follow them."""

    def __init__(self, usage: Usage, reporter: Reporter) -> None:
        self.residual: Residual | None = None
        self.streams: Slots[Value] = Slots(usage, reporter)
        self.ropes: Slots[Rope] = Slots(usage, reporter)
        self.ids: Slots[Value] = Slots(usage, reporter)
        """Ids that stages made, int64 [batch, sequence], by name."""
        self.biases: Slots[Value] = Slots(usage, reporter)
        """Biases of attention scores, float32 [1, heads, sequence, sequence], by name."""
        self.token_mask: Value | None = None
        """The padding mask that a stage chose in place of the graph's own, int64 [batch, sequence]."""
        self.position_ids: Value | None = None
        """Positions of the new tokens, int64 [batch, sequence], once a stage has asked for them."""
        self.embedding: str | None = None
        """Name of the table that the flow's ids were looked up in; a tied head uses it again."""
        self.bound_layers: int | None = None
        """How many layers a flow that spells out a decode phase has bound caches for."""
