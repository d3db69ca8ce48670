"""What the expansion of a flow holds: the build's options and the flow's hidden state."""

from __future__ import annotations

from dataclasses import dataclass, field
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


@dataclass(frozen=True, slots=True)
class Rope:
    """A named rope: facts that give angles at the tokens' positions, or angles that are fixed.

    A rope of places that are no token positions (patches of an image) has angles and no facts.
    """

    facts: RopeFacts | None
    angles: tuple[Value, Value] | None = None
    interleaved: bool = False
    head_dim: int | None = None
    """Channels of the heads that it is for; None where only the channels that turn are known."""


class Slots(dict[str, T]):
    """Values by name that stages leave for those that follow; a ledger tells who left each, and whether it was read."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger: tuple[Usage, Reporter] | None = None
        self._made: dict[str, Span] = {}

    def __setitem__(self, name: str, value: T) -> None:
        super().__setitem__(name, value)
        if self.ledger is not None:
            usage, reporter = self.ledger
            origin = reporter.site.origin
            if origin.span is not None:
                self._made[name] = origin.span
                usage.stages.setdefault(origin.span, origin)

    def __getitem__(self, name: str) -> T:
        self._asked(name)
        return super().__getitem__(name)

    def get(self, name: str, default: Any = None) -> Any:
        """The value of a name, or the default."""
        self._asked(name)
        return super().get(name, default)

    def update(self, *given: Any, **named: Any) -> None:
        """Leave several values."""
        for name, value in dict[str, T](*given, **named).items():
            self[name] = value

    def _asked(self, name: str) -> None:
        if self.ledger is not None:
            self.ledger[0].used(self._made.get(name))


@dataclass(slots=True)
class FlowState:
    """What stages of one phase leave for those that follow them."""

    residual: Residual | None = None
    streams: Slots[Value] = field(default_factory=Slots[Value])
    ropes: Slots[Rope] = field(default_factory=Slots[Rope])
    ids: Slots[Value] = field(default_factory=Slots[Value])
    """Ids that stages made, int64 [batch, sequence], by name."""
    biases: Slots[Value] = field(default_factory=Slots[Value])
    """Biases of attention scores, float32 [1, heads, sequence, sequence], by name."""
    token_mask: Value | None = None
    """The padding mask that a stage chose in place of the graph's own, int64 [batch, sequence]."""
    position_ids: Value | None = None
    """Positions of the new tokens, int64 [batch, sequence], once a stage has asked for them."""
    angles: dict[str, tuple[Value, Value]] = field(default_factory=dict[str, tuple[Value, Value]])
    """Cosine and sine of ropes at those positions, by the rope's name, once a stage has asked for them."""
    embedding: str | None = None
    """Name of the table that the flow's ids were looked up in; a tied head uses it again."""
    bound_layers: int | None = None
    """How many layers a flow that spells out a decode phase has bound caches for."""

    def keep_ledger(self, usage: Usage, reporter: Reporter) -> None:
        """Note in `usage` which stages leave something, and of which of them somebody asks for it."""
        for slots in (self.streams, self.ropes, self.ids, self.biases):
            slots.ledger = usage, reporter
