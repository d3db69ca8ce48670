"""What the expansion of a flow holds: the build's options and the flow's hidden state."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from flowc.errors import Span
from flowc.ir.graph import Value
from flowc.ir.rope import RopeFacts

Assume = Literal["none", "right-padding", "no-padding"]


@dataclass(frozen=True, slots=True)
class Options:
    """What a build asks of the graphs, beyond the spec."""

    assume: Assume = "none"
    logits: Literal["last", "all"] = "last"
    context: int | None = None


class Failed(Exception):
    """A stage could not go on; what is wrong has been collected."""


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


@dataclass(slots=True)
class Slots:
    """The hidden state of a flow."""

    residual: Value | None = None
    residual_place: Span | None = None
    """Where the residual was saved, for the error that it was never added."""
    streams: dict[str, Value] = field(default_factory=dict[str, Value])
    ropes: dict[str, Rope] = field(default_factory=dict[str, Rope])
    named: dict[str, Any] = field(default_factory=dict[str, Any])
    """Everything else that one stage leaves for another, by name."""
