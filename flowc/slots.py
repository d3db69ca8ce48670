"""What the expansion of a flow holds: the build's options, the names of weights, and the flow's hidden state."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from flowc.errors import Span
from flowc.ir.graph import Origin, Value
from flowc.ir.rope import RopeFacts

Assume = Literal["none", "right-padding", "no-padding"]


@dataclass(frozen=True, slots=True)
class Options:
    """What a build asks of the graphs, beyond the spec."""

    assume: Assume = "none"
    logits: Literal["last", "all"] = "last"
    context: int | None = None


class Names:
    """Shapes of the checkpoint's tensors, and which stage used which. Shared by all phases of a build."""

    def __init__(self, shapes: Mapping[str, tuple[int, ...]] | None) -> None:
        self.shapes = shapes
        """None when there is no checkpoint: every tensor is believed to exist as declared."""
        self.unreadable = False
        """Whether there should be a checkpoint: what it would tell is then not asked of the spec."""
        self.used: dict[str, tuple[tuple[int, ...], Origin]] = {}
        self.ports: set[str] = set()
        """Inputs and outputs of all graphs, before the spec renames them."""

    def unused(self, patterns: Sequence[str]) -> list[str]:
        """Tensors of the checkpoint that no stage used and no pattern (`*` for any text) allows."""
        allowed = [re.compile(".*".join(map(re.escape, p.split("*")))) for p in patterns]
        spare = [name for name in self.shapes or () if name not in self.used]
        return [name for name in spare if not any(a.fullmatch(name) for a in allowed)]


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
