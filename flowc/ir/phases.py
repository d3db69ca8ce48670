"""The phases of a model: each a record of what its graph takes and gives. Rooms ask for these facts, never for a name.

A phase is added here alone. Which of a target's kernels it gets stands in the target's table (`flowc/targets/`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, Protocol, get_args


@dataclass(frozen=True, slots=True)
class Phase:
    """What a graph of this phase is for."""

    name: str
    """In a spec's `flow:`, in `--graph`, and in the name of the file."""
    takes_past: bool
    """Whether it takes what earlier calls left."""
    emits_cache: bool
    """Whether it hands on what later calls need."""
    tokens: Literal["one", "any"]
    """How many new tokens of a row a call brings."""

    @property
    def alone(self) -> bool:
        """Whether one graph of it is enough to run a model: it takes all that it gives, and any number of tokens."""
        return self.takes_past == self.emits_cache and self.tokens == "any"

    @property
    def suffix(self) -> str:
        """What stands in the file's name behind the model's; nothing for a graph that is enough alone."""
        return "" if self.alone else self.name

    def __str__(self) -> str:
        return self.name


UNIFIED = Phase("unified", takes_past=True, emits_cache=True, tokens="any")
PREFILL = Phase("prefill", takes_past=False, emits_cache=True, tokens="any")
DECODE = Phase("decode", takes_past=True, emits_cache=True, tokens="one")
ENCODE = Phase("encode", takes_past=False, emits_cache=False, tokens="any")

PHASES = {phase.name: phase for phase in (UNIFIED, PREFILL, DECODE, ENCODE)}
"""Every phase by its name, in the order in which graphs are built."""


def phases_with(*, cache: bool) -> tuple[Phase, ...]:
    """The phases of a model that keeps a cache between calls, or of one that does not."""
    return tuple(phase for phase in PHASES.values() if phase.emits_cache is cache)


PhaseName = Literal["unified", "prefill", "decode", "encode"]
"""The names, as a type: what a file may say."""
Kind = Literal["decoder", "encoder"]
"""What a model is called that keeps a cache between calls, and one that does not."""
Way = Literal["pair", "unified"]
"""How a decoder runs: a prompt's graph and then a step's, or one for both."""
KINDS: tuple[Kind, ...] = get_args(Kind)


def kind_of(*, cache: bool) -> Kind:
    """What a model is called that keeps a cache between calls, or one that does not."""
    return KINDS[0] if cache else KINDS[1]


class HasPhase(Protocol):
    """A graph, as far as its phase goes."""

    @property
    def phase(self) -> Phase:
        """Its phase."""
        ...


def starting(graphs: Mapping[str, HasPhase], new: int = 0) -> list[str]:
    """The graphs that take a prompt of `new` tokens (0: of any number): those without a past first."""
    able = [name for name, graph in graphs.items() if graph.phase.tokens == "any" or new == 1]
    return sorted(able, key=lambda name: (graphs[name].phase.tokens == "one", graphs[name].phase.takes_past))


def going_on(graphs: Mapping[str, HasPhase], new: int = 0) -> list[str]:
    """The graphs that take `new` tokens (0: any number) over a past: those for one token first."""
    able = [name for name, graph in graphs.items() if graph.phase.takes_past]
    able = [name for name in able if graphs[name].phase.tokens == "any" or new == 1]
    return sorted(able, key=lambda name: graphs[name].phase.tokens == "any")


def without_past(graphs: Mapping[str, HasPhase]) -> str | None:
    """The graph that makes a cache and takes none: a prompt's own; None where there is none."""
    return next((n for n, g in graphs.items() if g.phase.emits_cache and not g.phase.takes_past), None)


def without_cache(graphs: Mapping[str, HasPhase]) -> str | None:
    """The graph of a model that keeps no cache between calls; None for one that does."""
    return next((name for name, graph in graphs.items() if not graph.phase.emits_cache), None)
