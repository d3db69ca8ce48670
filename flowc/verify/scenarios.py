"""Inputs that bite: which batches, lengths and pasts a model is tried with in full.

ragged      rows padded on the left and on the right, two steps on, then several tokens at once
masked      a row without any token, and rows whose new tokens are all masked
one         one row of one token, and a step over it
window      longer than any window, so that tokens fall out of it; a row with holes in its mask
long        a prompt of the whole context, as far as memory and time allow
rope        past the place where a rope changes its tables (longrope), by one row of several or by none
end         the last positions of the context, over a made-up past
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from flowc.build.compiled import Compiled
from flowc.ir.graph import Graph
from flowc.ir.phases import going_on, starting
from flowc.ir.types import BATCH, PAST, SEQUENCE, TOTAL
from flowc.verify.inputs import Array
from flowc.verify.quick import ragged

COPIES = 5
"""How often the interpreter holds the largest array of an operator, such as attention scores, at once."""

MARGIN = 1 << 24

LONG, LONG_IF_SMALL = 130, 1024
"""Longest prompts of a large model and of a small one, where no window or rope asks for more."""

SHORT = 8

CACHES = 4
"""How often a cache is held at once: fed, given by two graphs, and given by the interpreter."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """A prompt and what follows it.

    mask int64 [batch, columns] of the prompt; `steps` masks [batch, new] of the calls after it; `past` columns of a
    made-up cache before it (then there is no prefill).
    """

    name: str
    mask: Array
    steps: tuple[Array, ...] = ()
    past: int = 0
    seed: int = 1
    whole: bool = False
    """Says nothing in a shorter form: left out where memory does not suffice."""
    layers: bool = False
    """Compared operator by operator, in one layer of each kind: a length that changes kernels and no meaning."""

    @property
    def columns(self) -> int:
        """All columns at the end."""
        return self.past + self.mask.shape[1] + sum(s.shape[1] for s in self.steps)

    @property
    def widest(self) -> int:
        """New tokens of the widest call."""
        return max(self.mask.shape[1], *(s.shape[1] for s in self.steps), 0)


@dataclass(frozen=True, slots=True)
class Facts:
    """What of a model decides which inputs bite."""

    windows: tuple[int, ...]
    switches: tuple[int, ...]
    context: int | None

    @classmethod
    def of(cls, compiled: Compiled) -> Facts:
        """Facts of all graphs of a build, before the passes."""
        windows: set[int] = set()
        switches: set[int] = set()
        for graph in compiled.expanded.values():
            for node in graph.nodes:
                windows.update(node.op.windows())
                switches.update(node.op.switches())
        return cls(tuple(sorted(windows)), tuple(sorted(switches)), compiled.context_length)

    def switch_between(self, before: int, after: int) -> bool:
        """Whether a rope changes its tables when the longest row grows from `before` tokens to `after`."""
        return any(before <= length < after for length in self.switches)


def memory_of(graph: Graph, batch: int, new: int, past: int) -> int:
    """Bytes that interpreting a call takes at most: its widest results, attention scores and caches."""
    sizes = {BATCH: batch, SEQUENCE: new, PAST: past, TOTAL: past + new}

    def sized(shape: tuple[int | str, ...]) -> tuple[int, ...]:
        return tuple(d if isinstance(d, int) else sizes.get(d, 8) for d in shape)

    caches = sum(CACHES * prod(sized(v.shape)) for v in graph.inputs)
    widest = 0
    for node in graph.nodes:
        outputs = [sized(v.shape) for v in node.outputs]
        scratch = node.op.scratch([sized(v.shape) if v is not None else None for v in node.inputs], outputs)
        widest = max(widest, COPIES * scratch + 3 * sum(map(prod, outputs)))
    return 4 * (caches + widest)


def decoder_scenarios(compiled: Compiled, facts: Facts, memory: int, *, large: bool) -> Iterator[Scenario]:
    """What a decoder is tried with. Lengths stay within the context."""
    one_row = any(graph.one_row_over_a_past for graph in compiled.graphs.values())
    for scenario in _decoder_scenarios(compiled, facts, memory, large=large):
        for tried in _one_row_over_a_past(scenario) if one_row else (scenario,):
            yield _within(tried, facts.context or 1 << 30)


def _one_row_over_a_past(scenario: Scenario) -> Iterator[Scenario]:
    """The same in calls that a runtime takes which has several new tokens over a past in one row only."""
    single = tuple(step for step in scenario.steps if step.shape[1] == 1)
    if len(scenario.mask) == 1 or len(single) == len(scenario.steps):
        yield scenario
        return
    yield replace(scenario, steps=single)
    name = f"{scenario.name}, one row"
    yield replace(scenario, name=name, mask=scenario.mask[:1], steps=tuple(step[:1] for step in scenario.steps))


def _within(scenario: Scenario, room: int) -> Scenario:
    """The same, without the steps and the columns that the context has no room for."""
    while scenario.steps and scenario.columns > room:
        scenario = replace(scenario, steps=scenario.steps[:-1])
    return replace(scenario, mask=scenario.mask[:, : max(1, room - scenario.past)])


def _decoder_scenarios(compiled: Compiled, facts: Facts, memory: int, *, large: bool) -> Iterator[Scenario]:
    assume = compiled.request.options.assume
    room = facts.context or 1 << 30

    def fits(wanted: int) -> int:
        return max(1, min(wanted, room - 6))

    def full(rows: int, new: int) -> Array:
        return np.ones((rows, new), np.int64)

    tail = full(3, 3)
    if assume == "none":
        tail[2, -1], tail[1, 0] = 0, 0
    # With --assume right-padding, a cache holds what was padded at its end; steps are tried over full rows.
    steps = (full(3, 1), full(3, 1), tail) if assume == "none" else ()
    if large:
        steps = steps[1:]
    yield Scenario("ragged", ragged(3, fits(9), assume), steps)
    yield Scenario("one", full(1, 1), (full(1, 1),), seed=2, layers=large)
    if assume == "none":
        masked = _masked(fits(6))
        yield replace(masked, steps=masked.steps[:1]) if large else masked
    if not large:
        yield Scenario("full", full(2, fits(7)), (full(2, 1), full(2, 4)), seed=3)
    for window in facts.windows:
        length = fits(window + 5)
        if length > window:
            rows = full(2, length)
            if assume == "none":
                rows[1, :2], rows[1, 4:7] = 0, 0
            yield Scenario(f"window of {window}", rows, (full(2, 1), full(2, 3)), seed=4)
    length = _affordable_prompt(compiled, memory, min(room, LONG if large else LONG_IF_SMALL))
    if length > fits(max(9, *(w + 5 for w in facts.windows), 0)):
        yield Scenario("long", full(1, length), seed=7, layers=large)
    for switch in facts.switches:
        if switch < room:
            yield Scenario(f"rope past {switch}", full(1, switch + 2), (full(1, 1), full(1, 2)), seed=5)
            yield Scenario(f"rope across {switch}", full(1, switch - 1), (full(1, 1), full(1, 1), full(1, 1)), seed=5)
        if switch < room and assume == "none" and switch > SHORT:
            yield from _ragged_switch(switch)
    steps = 1 if large else 2
    if facts.context is not None and facts.context > 16:
        past = min(facts.context - steps, _affordable_past(compiled, memory))
        name = "end of the context" if past == facts.context - steps else f"{past} tokens into the context"
        yield Scenario(name, full(1, 1), (full(1, 1),) * (steps - 1), past=past, seed=6, layers=large)


def _masked(columns: int) -> Scenario:
    """Rows without a token: in the prompt, in a step, among several new tokens. They are finite, and touch no other."""
    mask, step, tail = (np.ones((4, new), np.int64) for new in (columns, 1, 3))
    mask[1], mask[2, :2] = 0, 0
    step[1:3] = 0
    tail[0], tail[2, ::2] = 0, 0
    return Scenario("masked", mask, (step, tail, np.ones_like(step), step), seed=8)


def _ragged_switch(switch: int) -> Iterator[Scenario]:
    """Batches in which one row passes the switch, its last columns masked; or none does, for all its columns."""
    past, before = np.ones((3, switch + 4), np.int64), np.ones((2, switch + 3), np.int64)
    past[0, : switch // 2], past[1, -2:], past[2, :-SHORT] = 0, 0, 0
    before[0, :5], before[1, :2], before[1, -3:] = 0, 0, 0
    one, two = (np.ones((3, new), np.int64) for new in (1, 2))
    yield Scenario(f"rope of one row past {switch}", past, (one, two), seed=9, whole=True)
    yield Scenario(f"rope before {switch}, columns past it", before, (one[:2],) * 4, seed=9, whole=True)


def _affordable_prompt(compiled: Compiled, memory: int, length: int) -> int:
    """How long a prompt of one row may be, at most `length`; 0 where no graph takes one at once."""
    phase = next(iter(starting(compiled.graphs)), None)
    while phase is not None and length > SHORT and memory_of(compiled.expanded[phase], 1, length, 0) > memory:
        length //= 2
    return length if phase is not None else 0


def _affordable_past(compiled: Compiled, memory: int) -> int:
    """How long a made-up cache of one row may be."""
    longest = 1 << 30
    for phase in going_on(compiled.graphs, 1):
        base, more = (memory_of(compiled.graphs[phase], 1, 1, past) for past in (0, 1 << 20))
        longest = min(longest, (memory - base - MARGIN) * (1 << 20) // max(1, more - base))
    return max(1, longest)


def encoder_scenarios(compiled: Compiled, facts: Facts, *, tokens: bool, padded: bool) -> Iterator[Scenario]:
    """What an encoder or a vision model is tried with."""
    if not tokens:
        yield Scenario("one", np.ones((1, 1), np.int64))
        yield Scenario("batch", np.ones((3, 1), np.int64), seed=2)
        return
    room = facts.context or 1 << 30
    yield Scenario("ragged", ragged(3, min(9, room), "none" if padded else "no-padding"))
    yield Scenario("one", np.ones((1, 1), np.int64), seed=2)
    for window in facts.windows:
        if window < room:
            yield Scenario(
                f"reach of {window}", ragged(2, min(window + 9, room), "none" if padded else "no-padding"), seed=4
            )
    if facts.context is not None:
        yield Scenario("whole context", np.ones((1, facts.context), np.int64), seed=6)


def by_columns(scenario: Scenario) -> Scenario:
    """The same, every column a call of its own."""
    columns: Array = np.concatenate([scenario.mask, *scenario.steps], axis=1)
    first, *rest = np.split(columns, columns.shape[1], axis=1)
    return replace(scenario, mask=first, steps=tuple(rest))


def shortened(scenario: Scenario, columns: int) -> Scenario:
    """The same with a made-up past instead of most of the prompt."""
    keep = min(4, scenario.mask.shape[1])
    return replace(scenario, mask=scenario.mask[:, -keep:] * 0 + 1, past=columns - keep)
