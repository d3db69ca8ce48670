"""Seeded inputs for the graphs of a build, whatever they take.

Tokens lie below the vocabulary, indices below their table; masks and caches follow from what a scenario pads and
caches; everything else is drawn by its element type. The same seed gives the same arrays on every machine.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Literal

import numpy as np

from flowc.build.compiled import Compiled
from flowc.ir.graph import Graph, Value
from flowc.ir.phases import going_on, starting
from flowc.ir.types import BATCH, PAST, SEQUENCE, TOTAL, Dim, TensorType

Array = np.ndarray[Any, np.dtype[Any]]
Arrays = Mapping[str, Array]

_BINARY = 2  # bound of integers that index nothing: masks and flags of a spec's own
APART = 1009
"""How far apart in one array of random numbers two made-up caches begin: no multiple of a head's size."""
PAST_SPREAD = 0.25
"""Spread of a made-up cache: wide ones make attention so sharp that rounding alone moves the result."""

_FREE_SIZE = 4  # of the first dimension that a spec names itself; the others count on, so that a mix-up shows


@dataclass(frozen=True, slots=True)
class Call:
    """One run of one graph.

    `new` bool [batch, new tokens] and `total` bool [batch, cached and new]: True where a token is no padding. A graph
    without tokens has one column in both.
    """

    label: str
    phase: str
    feeds: Arrays
    new: Array
    total: Array
    tied: Array | None = None
    """bool [batch, new tokens]: tokens behind a router that may go two ways, whose numbers mean nothing."""

    def without(self, tied: Array | None) -> Call:
        """The same call, where the numbers of tied tokens are not specified."""
        if tied is None or not tied.any():
            return self
        total = self.total.copy()
        total[:, total.shape[1] - tied.shape[1] :] &= ~tied
        return replace(self, new=self.new & ~tied, total=total, tied=tied)

    def valid(self, kind: TensorType, *, mask: bool = False) -> Array:
        """Where a value of that type is specified: bool, broadcastable to it. Of a `mask`, padded keys are a part."""
        if not kind.shape or kind.shape[0] != BATCH:
            return np.ones((1,) * kind.rank, bool)
        batch = len(self.new)
        keep = self.new.any(axis=1).reshape(batch, *(1,) * (kind.rank - 1))
        for axis, dim in enumerate(kind.shape[1:], start=1):
            columns = {SEQUENCE: self.new, TOTAL: self.total}.get(str(dim))
            if columns is not None and not (mask and dim == TOTAL):
                keep = keep & columns.reshape(
                    batch, *(columns.shape[1] if a == axis else 1 for a in range(1, kind.rank))
                )
        return keep


@dataclass(frozen=True, slots=True)
class _Port:
    role: Literal["mask", "past", "tokens", "fixed"]
    kind: TensorType
    axis: int = 0
    bound: int = _BINARY


class Feeder:
    """Makes the inputs of all graphs of one build."""

    def __init__(self, compiled: Compiled) -> None:
        self._compiled = compiled
        self._internal = {public: name for name, public in compiled.spec.public_names.items()}
        self._ports: dict[str, _Port] = {}
        # The unified graph, or else a prefill, shows which dimension is the sequence; a decode graph has 1 there.
        graphs = compiled.graphs
        for graph in [graphs[name] for name in (*going_on(graphs), *starting(graphs, 1))]:
            for value in graph.inputs:
                self._ports.setdefault(value.name, self._port(graph, value))
        free = sorted({t for p in self._ports.values() for d in p.kind.shape for t in _terms(d)})
        self._free = {name: _FREE_SIZE + i for i, name in enumerate(free)}
        for graph in compiled.graphs.values():
            for node in graph.nodes:
                self._free |= node.op.trial_sizes(node.input_types)

    def _port(self, graph: Graph, value: Value) -> _Port:
        name = self._internal.get(value.name, value.name)
        component = next(c for c in self._compiled.spec.components if c.name == graph.component)
        kind = next((d.type for d in component.inputs if d.name == name and d.type is not None), value.type)
        if value.name in graph.cache_ports:
            return _Port("past", kind)
        if name == "attention_mask" and kind.rank == 2:
            return _Port("mask", kind)
        axis = next((a for a, d in enumerate(kind.shape) if d in (SEQUENCE, TOTAL)), None)
        if axis is None and graph.phase.tokens == "one" and kind.shape[:2] == (BATCH, 1):
            axis = 1
        bound = _bound(graph, value, self._compiled.context_length)
        return _Port("fixed" if axis is None else "tokens", kind, axis or 0, bound)

    @property
    def takes_mask(self) -> bool:
        """Whether rows can be padded at all."""
        return any(p.role == "mask" for p in self._ports.values())

    @property
    def takes_tokens(self) -> bool:
        """Whether the graphs have a sequence; an image model's have none."""
        return any(p.role == "tokens" for p in self._ports.values())

    @property
    def names_tokens(self) -> bool:
        """Whether the graphs start from token ids under their usual name."""
        return "input_ids" in self._ports

    def is_drawn(self, name: str) -> bool:
        """Whether an input is neither a mask nor a cache."""
        return self._ports[name].role in ("tokens", "fixed")

    def draw(self, batch: int, columns: int, seed: int) -> dict[str, Array]:
        """Everything but masks and caches, for `columns` tokens in each of `batch` rows."""
        sizes = {**self._free, BATCH: batch, SEQUENCE: columns, TOTAL: columns}
        drawn: dict[str, Array] = {}
        for name, port in self._ports.items():
            if port.role in ("tokens", "fixed"):
                shape = [d if isinstance(d, int) else sum(sizes[t] for t in _terms(d)) for d in port.kind.shape]
                if port.role == "tokens":
                    shape[port.axis] = columns
                drawn[name] = _draw(port, shape, np.random.default_rng([seed, zlib.crc32(name.encode())]))
        return drawn

    def at_the_ends(self, drawn: Arrays) -> dict[str, Array]:
        """The same, with the last and the first that integers may be as the first row's first tokens."""
        ends = dict(drawn)
        for name, array in drawn.items():
            port = self._ports[name]
            if port.role == "tokens" and port.kind.dtype in ("int64", "int32"):
                ends[name] = array = array.copy()
                for column, value in enumerate((port.bound - 1, 0)[: array.shape[port.axis]]):
                    array[tuple(column if a == port.axis else 0 for a in range(array.ndim))] = value
        return ends

    def rows(self, drawn: Arrays, row: int, columns: Array) -> dict[str, Array]:
        """One row alone, with its `columns` (indices) only."""
        alone: dict[str, Array] = {}
        for name, array in drawn.items():
            port = self._ports[name]
            if port.kind.shape[:1] == (BATCH,):
                array = array[row : row + 1]
            if port.role == "tokens":
                array = np.take(array, columns, axis=port.axis)
            alone[name] = array
        return alone

    def call(
        self,
        label: str,
        phase: str,
        drawn: Arrays,
        mask: Array,
        start: int = 0,
        past: Arrays | None = None,
    ) -> Call:
        """Columns `start` and on of what was drawn, over a past that holds the columns before.

        mask int64 [batch, columns]. `past` arrays by input name; one that is not given is empty.
        """
        feeds: dict[str, Array] = {}
        for value in self._compiled.graphs[phase].inputs:
            port = self._ports[value.name]
            match port.role:
                case "mask":
                    feeds[value.name] = mask.astype(port.kind.dtype)
                case "past":
                    sizes = {BATCH: len(mask), PAST: 0}
                    empty = [d if isinstance(d, int) else sizes[d] for d in value.shape]
                    given = (past or {}).get(value.name)
                    feeds[value.name] = np.zeros(empty, port.kind.dtype) if given is None else given
                case "tokens":
                    feeds[value.name] = _columns(drawn[value.name], port.axis, start, mask.shape[1])
                case "fixed":
                    feeds[value.name] = drawn[value.name]
        return Call(label, phase, feeds, mask[:, start:] != 0, mask != 0)

    def past_of(self, results: Arrays) -> dict[str, Array]:
        """The caches that a run gave, as the inputs of the next one."""
        slots = [slot for graph in self._compiled.graphs.values() for slot in graph.caches]
        taken = {(slot.layer, slot.slot): slot.past for slot in slots if slot.past is not None}
        past: dict[str, Array] = {}
        for slot in slots:
            name = taken.get((slot.layer, slot.slot))
            if name is not None and slot.present is not None and slot.present in results:
                past[name] = results[slot.present]
        return past

    def made_up_past(self, phase: str, batch: int, columns: int, seed: int) -> dict[str, Array]:
        """A past of random numbers, where no graph of the build makes one or a real one would take too long.

        They are parts of one array of random numbers, each from a place of its own.
        """
        sizes = {BATCH: batch, PAST: columns}
        caches = [v for v in self._compiled.graphs[phase].inputs if self._ports[v.name].role == "past"]
        shapes = [[d if isinstance(d, int) else sizes[d] for d in cache.shape] for cache in caches]
        count = max(map(prod, shapes), default=0) + APART * len(caches)
        numbers = np.random.default_rng([seed, len(caches)]).standard_normal(count, np.float32)
        numbers *= np.float32(PAST_SPREAD)
        past: dict[str, Array] = {}
        for number, (cache, shape) in enumerate(zip(caches, shapes, strict=True)):
            part = numbers[number * APART :][: prod(shape)]
            past[cache.name] = part.reshape(shape).astype(cache.dtype, copy=False)
        return past


def _terms(dim: Dim) -> list[str]:
    """The names that a dimension is the sum of."""
    return str(dim).split(" + ") if isinstance(dim, str) else []


def _columns(array: Array, axis: int, start: int, stop: int) -> Array:
    return array[(*[slice(None)] * axis, slice(start, stop))]


def _bound(graph: Graph, value: Value, context: int | None) -> int:
    """How far integers of an input may go: to the end of the shortest table that they index."""
    found = (
        node.op.index_bound(operand, node.input_types, context)
        for node in graph.users().get(value, [])
        for operand, given in zip(node.op.operands, node.inputs, strict=False)
        if given is value
    )
    return min((bound for bound in found if bound is not None), default=_BINARY)


def _draw(port: _Port, shape: list[int], rng: np.random.Generator) -> Array:
    if port.kind.dtype in ("int64", "int32"):
        return rng.integers(0, port.bound, shape, port.kind.dtype)
    if port.kind.dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    return rng.standard_normal(shape, np.float32).astype(port.kind.dtype)
