"""What a graph costs at given sizes: parameters, multiply-adds, bytes read, cache; per stage of the spec and in all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

import numpy as np

from flowc.ir.graph import Graph, Node, Value
from flowc.ir.types import BATCH, PAST, SEQUENCE, TOTAL, Dim


@dataclass(slots=True)
class Cost:
    """Costs of one stage, or of a whole graph."""

    stage: str
    kind: str = ""
    operators: int = 0
    parameters: int = 0
    """Elements of weights of the checkpoint that no stage before it uses."""
    macs: int = 0
    """Multiply-adds of one run."""
    bytes_read: int = 0
    """Bytes of weights and of cached state that one run reads; of a table, the rows that it needs."""
    cache_bytes: int = 0
    """Bytes that the cache grows by with every token of a sequence."""

    def add(self, other: Cost) -> None:
        """Add another's numbers."""
        for name in ("operators", "parameters", "macs", "bytes_read", "cache_bytes"):
            setattr(self, name, getattr(self, name) + getattr(other, name))


@dataclass(frozen=True, slots=True)
class Costs:
    """Costs of a graph, stage by stage."""

    stages: tuple[Cost, ...]
    sizes: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def total(self) -> Cost:
        """All stages together."""
        total = Cost("total")
        for cost in self.stages:
            total.add(cost)
        return total


def sizes_of(graph: Graph, batch: int = 1, sequence: int = 1, past: int = 0, **others: int) -> dict[str, int]:
    """Sizes of the usual symbols. A graph with one new token has a sequence of 1, whatever is asked for."""
    new = 1 if graph.phase.tokens == "one" else sequence
    return {BATCH: batch, SEQUENCE: new, PAST: past, TOTAL: past + new, **others}


def costs(graph: Graph, sizes: Mapping[str, int]) -> Costs:
    """Costs of one run. Raises KeyError for a dimension whose size is not given."""
    stages: dict[str, Cost] = {}
    seen: set[str] = set()
    presents, takes = {c.present for c in graph.caches}, {c.past for c in graph.caches}
    states = {o.value for o in graph.outputs if o.name in presents}
    pasts = {v for v in graph.inputs if v.name in takes}
    for node in graph.nodes:
        cost = stages.setdefault(node.origin.stage, Cost(node.origin.stage, node.origin.kind))
        cost.operators += 1
        inputs = [_shape(v, sizes) if v is not None else None for v in node.inputs]
        cost.macs += node.op.macs(inputs, [_shape(v, sizes) or () for v in node.outputs])
        for value in {v: None for v in node.inputs if v is not None}:
            if value.weight is not None:
                cost.bytes_read += _bytes_of(node, value, sizes)
                for tensor in value.weight.tensors():
                    if tensor.key not in seen:
                        seen.add(tensor.key)
                        cost.parameters += prod(tensor.shape)
            elif value in pasts and not any(node.input(name) is value for name in node.op.measured):
                cost.bytes_read += prod(_shape(value, sizes)) * _itemsize(value)
        for value in node.outputs:
            if value in states and (TOTAL in value.shape or SEQUENCE in value.shape):
                others = [_size(d, sizes) for d in value.shape if d not in (BATCH, TOTAL, SEQUENCE)]
                cost.cache_bytes += prod(others) * _itemsize(value)
    return Costs(tuple(stages.values()), dict(sizes))


def _bytes_of(node: Node, value: Value, sizes: Mapping[str, int]) -> int:
    """Bytes of a constant that a node reads."""
    readers = _readers_of_rows(node, value)
    if readers is not None and value.type.rank == 2:
        rows = prod(_shape(readers, sizes)[:2])
        return min(rows, _size(value.shape[0], sizes)) * _size(value.shape[1], sizes) * _itemsize(value)
    return prod(_shape(value, sizes)) * _itemsize(value)


def _readers_of_rows(node: Node, value: Value) -> Value | None:
    """What reads one row of a table per element of its first two axes; None where a node reads the whole."""
    return next((node.input(reader) for table, reader in node.op.tables.items() if node.input(table) is value), None)


def _itemsize(value: Value) -> int:
    return 2 if value.dtype == "bfloat16" else np.dtype(value.dtype).itemsize


def _shape(value: Value, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(_size(d, sizes) for d in value.shape)


def _size(dim: Dim, sizes: Mapping[str, int]) -> int:
    """A dimension's size; symbolic ones may be sums and differences."""
    if isinstance(dim, int):
        return dim
    if dim in sizes:
        return sizes[dim]
    total, sign = 0, 1
    for term in dim.split():
        if term in "+-":
            sign = 1 if term == "+" else -1
        else:
            total += sign * (int(term) if term.isdigit() else sizes[term])
    return total
