"""A graph as a reader sees it: stages and layers in the order of their data, and what goes from one to another.

    embed ──stream──► layers.0 … 29 (x 30) ──stream──► rms_norm ──stream──► lm_head
    shared ──shared (bias)──► layers.0 … 29

Every arrow is a value that one part makes and another reads. Layers are folded into one only when they compute the same
on the same kind of data: equal operators, types and wiring, from the layer before, from the same shared values and from
their own caches.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Literal

from flowc.ir.graph import Graph, Node, Value

Kind = Literal["stream", "residual", "shared", "cache", "input", "output"]
"""How a value reaches a part: from the part before; around parts into a sum; made once for many; kept between calls."""


@dataclass(frozen=True, slots=True)
class Port:
    """A value that comes into a part, or leaves the graph from it."""

    value: Value
    name: str
    kind: Kind
    other: str = ""
    """The part that makes it; empty for inputs and outputs of the graph."""


@dataclass(slots=True)
class Part:
    """Operators that belong together: one stage, or one layer; `times` equal ones stand for as many."""

    label: str
    nodes: list[Node]
    times: int = 1
    last: str = ""
    entries: list[Port] = field(default_factory=list[Port])
    exits: list[Port] = field(default_factory=list[Port])

    @property
    def title(self) -> str:
        """What it is called: `layers.1 … 29` for folded ones."""
        return self.label if self.times == 1 else f"{self.label} … {_number(self.last)}"


PREPARED = "shared"
"""The part that holds what several layers share and no layer makes: masks, positions, ropes."""

_LAYER = re.compile(r"\.(\d+)\.")


def outline(graph: Graph) -> list[Part]:
    """The parts of a graph, equal neighbours folded, each with what it takes and what the graph gives from it."""
    parts = _ordered(graph)
    at = {node: number for number, part in enumerate(parts) for node in part.nodes}
    makers = graph.producers()
    readers: dict[Value, set[int]] = {}
    for number, part in enumerate(parts):
        for value in _values_read(part):
            if value not in makers or at[makers[value]] != number:
                readers.setdefault(value, set()).add(number)
    names = {output.value: output.name for output in reversed(graph.outputs)}
    for number, part in enumerate(parts):
        part.entries = [
            _entry(value, number, parts, at, makers, readers, graph.cache_ports)
            for value in _read_from_outside(part, makers, at)
        ]
        part.exits = [_exit(v, names[v], graph.cache_ports) for n in part.nodes for v in n.outputs if v in names]
    folded: list[Part] = []
    before: _Shape | None = None
    for number, part in enumerate(parts):
        shape = _shape(number, parts, at, makers, readers, names)
        fits = before is not None and shape.computes == before.computes and _number(part.label) is not None
        if folded and fits and before is not None and (folded[-1].times == 1 or shape.takes == before.takes):
            folded[-1].times += 1
            folded[-1].last = part.label
        else:
            folded.append(part)
        before = shape
    return _renamed(folded)


def _ordered(graph: Graph) -> list[Part]:
    """Parts in an order in which each stands below all that it reads; one that others interrupt comes in pieces."""
    labels: dict[str, list[Node]] = {}
    prepared = _prepared(graph)
    for node in graph.nodes:
        labels.setdefault(PREPARED if node in prepared else _layer(node.origin.stage), []).append(node)
    place = {node: number for number, node in enumerate(graph.nodes)}
    makers = graph.producers()
    done: set[Node] = set()
    parts: list[Part] = []

    def ready(nodes: list[Node]) -> list[Node]:
        """The nodes, in order, that need nothing but what is done and one another."""
        found: set[Node] = set()
        for node in nodes:
            above = [makers[v] for v in node.inputs if v is not None and v in makers]
            if all(m in done or m in found for m in above):
                found.add(node)
        return [node for node in nodes if node in found]

    left = dict(sorted(labels.items(), key=lambda item: (item[0] != PREPARED, place[item[1][-1]])))
    while left:
        label = next((k for k, nodes in left.items() if len(ready(nodes)) == len(nodes)), None)
        nodes = ready(left[label]) if label is not None else []
        if label is None:
            label, nodes = next((k, found) for k, n in left.items() if (found := ready(n)))
        parts.append(Part(label, nodes))
        done.update(nodes)
        rest = [node for node in left[label] if node not in done]
        if rest:
            left[label] = rest
        else:
            del left[label]
    return parts


def _prepared(graph: Graph) -> set[Node]:
    """Operators of layers that need inputs of the graph only and serve several layers: masks, positions, ropes."""
    makers, users = graph.producers(), graph.users()
    early: set[Node] = set()
    for node in graph.nodes:
        ready = all(v is None or v.weight is not None or v not in makers or makers[v] in early for v in node.inputs)
        if ready and _number(_layer(node.origin.stage)) is not None:
            early.add(node)
    serves: dict[Node, set[str]] = {}
    for node in reversed(graph.nodes):
        if node in early:
            read = [user for v in node.outputs for user in users.get(v, ())]
            serves[node] = {_layer(u.origin.stage) for u in read}.union(*(serves[u] for u in read if u in early))
    return {node for node in early if len(serves[node]) > 1}


def _layer(stage: str) -> str:
    """The part of a stage's path up to its last index of a repeat."""
    pieces = [piece for piece in stage.split(".") if piece != "repeat"] or ["repeat"]
    indices = [i for i, piece in enumerate(pieces) if piece.isdigit()]
    return ".".join(pieces[: indices[-1] + 1]) if indices else pieces[0]


def _number(label: str) -> int | None:
    piece = label.rsplit(".", 1)[-1]
    return int(piece) if piece.isdigit() else None


def _values_read(part: Part) -> Iterator[Value]:
    for node in part.nodes:
        for value in node.inputs:
            if value is not None and value.weight is None:
                yield value


def _read_from_outside(part: Part, makers: dict[Value, Node], at: dict[Node, int]) -> list[Value]:
    own = set(part.nodes)
    return list(dict.fromkeys(v for v in _values_read(part) if v not in makers or makers[v] not in own))


def _entry(
    value: Value, number: int, parts: list[Part], at: dict[Node, int], makers: dict[Value, Node],
    readers: dict[Value, set[int]], states: Collection[str],
) -> Port:  # fmt: skip
    maker = makers.get(value)
    if maker is None:
        return Port(value, value.name, "cache" if value.name in states else "input")
    other = parts[at[maker]].label
    name = short(value)
    numbers = not value.dtype.startswith(("float", "bfloat"))
    if numbers or maker.op.category in ("mask", "rope"):
        return Port(value, name, "shared", other)
    if at[maker] == number - 1 or len(readers[value]) == 1:
        return Port(value, name, "stream", other)
    sums = any(n.op.caption() == "add" for n in parts[number].nodes if value in n.inputs)
    return Port(value, name, "residual" if sums else "shared", other)


def _exit(value: Value, name: str, states: Collection[str]) -> Port:
    return Port(value, name, "cache" if name in states else "output")


def short(value: Value) -> str:
    """A value's name within its stage."""
    return value.name.rsplit(".", 1)[-1]


@dataclass(frozen=True, slots=True)
class _Shape:
    """What a part computes, the same for layers that one drawing can stand for, and where the part before made it."""

    computes: tuple[object, ...]
    takes: tuple[tuple[int, int, int], ...]


def _shape(
    number: int, parts: list[Part], at: dict[Node, int], makers: dict[Value, Node],
    readers: dict[Value, set[int]], names: dict[Value, str],
) -> _Shape:  # fmt: skip
    part = parts[number]
    own = {value: (i, k) for i, node in enumerate(part.nodes) for k, value in enumerate(node.outputs)}
    taken: dict[Value, tuple[int, int, int]] = {}

    def operand(value: Value | None) -> object:
        if value is None:
            return None
        if value.weight is not None:
            return ("weight", str(value.type))
        if value in own:
            return own[value]
        maker = makers.get(value)
        if maker is None:
            return ("input", _LAYER.sub(".N.", value.name))
        if len(readers[value]) == 1:
            back = parts[at[maker]].nodes
            taken.setdefault(value, (number - at[maker], back.index(maker), maker.outputs.index(value)))
            return ("before", list(taken).index(value))
        return ("shared", value.name)

    computes = tuple(
        (
            node.op.name, repr(node.op), tuple(map(operand, node.inputs)), tuple(str(v.type) for v in node.outputs),
            tuple(_LAYER.sub(".N.", names.get(v, "")) for v in node.outputs),
        )
        for node in part.nodes
    )  # fmt: skip
    return _Shape(computes, tuple(taken.values()))


def _renamed(parts: list[Part]) -> list[Part]:
    """Ports of folded layers by names that hold for all of them, and by the parts that are drawn."""
    for part in parts:
        if part.times > 1:
            part.entries = [_for_all(port) for port in part.entries]
            part.exits = [_for_all(port) for port in part.exits]
    return parts


def _for_all(port: Port) -> Port:
    other = f"{port.other} or the layer before" if port.kind == "stream" else port.other
    return Port(port.value, _LAYER.sub(".N.", port.name), port.kind, other)
