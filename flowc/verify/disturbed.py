"""How far rounding may move the outputs of a whole graph: the graph run again with every value inside of it moved.

A copy of the graph is made in memory in which each operator's result passes through two factors near 1 that are drawn
anew in every run, one for each number and one for each row:

    x  ->  x * (1 - 4u or 1 + 4u, for each number) * (1 - 2u or 1 + 2u, for each row)  ->  readers of x

A gate or a function that saturates is moved by as much of what it was worked out with (`Op.rounds_at`) besides.
So errors of about the size of a rounding enter everywhere and travel as the graph's own do: through softmaxes that
are sharp, norms that enlarge what is near zero, routers, caches. What comes out is compared with what the graph gives
itself. A cache is moved by rows as it is read, and not as it is given out: nothing is computed there.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from flowc.ir.graph import Graph, Node, Value
from flowc.ir.types import PAST, TOTAL
from flowc.runtime.session import graph_file
from flowc.verify.rounding import EACH, ROW, SURE, allowance, row_means, unit_roundoff

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

Array = np.ndarray[Any, np.dtype[Any]]

EXACT = "/before it is moved"


@dataclass(frozen=True, slots=True)
class Router:
    """The scores of a mixture's experts, by their name in the graph file; `top` of them are chosen."""

    scores: str
    top: int


@dataclass(frozen=True, slots=True)
class Allowance:
    """Allowed error of each output of one run; `tied` bool [batch, new tokens]: behind a router that may go two ways.

    `errors` are broadcastable to the outputs.
    """

    errors: Mapping[str, Array]
    tied: Array | None = None


def routers(graph: Graph, names: Mapping[Value, str]) -> tuple[Router, ...]:
    """Every router whose scores are a value of the graph file."""
    found: list[Router] = []
    for node in graph.nodes:
        router = node.op.router()
        if router is not None and (scores := node.need(router[0])) in names:
            found.append(Router(names[scores], router[1]))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Moved:
    """A value to move, by its name in the graph file."""

    name: str
    dtype: str
    size: str | float | None = None
    """What it is moved by, beside its own size: a value's name or a number (see `Op.rounds_at`)."""
    rows: bool = False
    """Only its rows as a whole: a cache, whose scores are rounded one by one however much they have in common."""


def moved_values(graph: Graph, names: Mapping[Value, str]) -> Iterator[Moved]:
    """The values to move: float inputs, and results that are no copy of a cache."""
    seen: set[str] = set()
    values: list[tuple[Value, Node | None]] = [(v, None) for v in graph.inputs]
    for value, node in [*values, *((v, n) for n in graph.nodes for v in n.outputs)]:
        name = names.get(value, value.name)
        cached = {PAST, TOTAL} & {str(d) for d in value.shape} and len(value.shape) == 4
        rounds = unit_roundoff(value.dtype) and value.dtype != "bfloat16"  # which numpy does not carry
        if rounds and value.shape and name not in seen and not (cached and node is not None):
            seen.add(name)
            yield Moved(name, value.dtype, None if node is None else _size(node, names), rows=bool(cached))


def _size(node: Node, names: Mapping[Value, str]) -> str | float | None:
    at = node.op.rounds_at()
    if isinstance(at, str):
        value = node.input(at)
        return None if value is None else names.get(value)
    return at


def disturbed(file: Path, values: Sequence[Moved], also: Sequence[str] = ()) -> ModelProto:
    """The copy of a graph; `also` are inner values that it gives out beside its outputs."""
    import onnx

    model: Any = graph_file(file)
    graph = model.graph
    by_name = {value.name: value for value in values}
    known = {v.name for v in graph.input} | {name for node in graph.node for name in node.output}
    nodes: list[Any] = []
    renamed = {v.name: f"{v.name}{EXACT}/moved" for v in graph.input if v.name in by_name}
    for name, new in renamed.items():
        nodes += _moves(by_name[name], name, new, len(nodes), known)
    for node in graph.node:
        _reads(node, renamed)
        made = [name for name in node.output if name in by_name]
        for index, name in enumerate(node.output):
            if name in by_name:
                node.output[index] = name + EXACT
        nodes.append(node)
        for name in made:
            nodes += _moves(by_name[name], name + EXACT, name, len(nodes), known)
    graph.initializer.extend(_constants(values))
    del graph.node[:]
    graph.node.extend(nodes)
    there = {output.name for output in graph.output}
    for name in dict.fromkeys(also):
        if name not in there and name in known:
            graph.output.append(onnx.ValueInfoProto(name=name))
    return model


_FIRST, _HALF, _DRAW = (f"{name}{EXACT}" for name in ("first", "half", "draw"))


def _constants(values: Sequence[Moved]) -> list[TensorProto]:
    import onnx

    half: Array = np.array(0.5, np.float32)
    constants: dict[str, Array] = {_FIRST: np.zeros(1, np.int64), _HALF: half, _DRAW: np.array(True)}
    for value in values:
        unit, dtype = unit_roundoff(value.dtype), np.dtype(value.dtype)
        steps = (1 + EACH * unit, 1 - EACH * unit, 1 + ROW * unit, 1 - ROW * unit, EACH * unit, -EACH * unit)
        constants |= {name: np.array(step, dtype) for name, step in zip(_steps(value.dtype), steps, strict=True)}
        if isinstance(value.size, float | int):
            constants[_number(value)] = np.array(value.size, dtype)
    return [onnx.numpy_helper.from_array(value, name=name) for name, value in constants.items()]


def _steps(dtype: str) -> tuple[str, str, str, str, str, str]:
    steps = ("up", "down", "row up", "row down", "plus", "minus")
    up, down, row_up, row_down, plus, minus = (f"{dtype} {step}{EXACT}" for step in steps)
    return up, down, row_up, row_down, plus, minus


def _number(value: Moved) -> str:
    return f"{value.dtype} {value.size}{EXACT}"


def _moves(value: Moved, source: str, target: str, seed: int, known: Collection[str]) -> list[NodeProto]:
    """One of two factors for each number and for each row. The mask of a Dropout in training is what draws them."""
    parts = ("first", "once", "each", "mask", "row", "row mask", "sign", "more", "twice")
    first, once, each, mask, row, row_mask, sign, more, twice = (f"{target}{EXACT}/{part}" for part in parts)
    up, down, row_up, row_down, plus, minus = _steps(value.dtype)
    if value.rows:
        return [
            _node("Gather", [source, _FIRST], [first], axis=-1),
            _node("Dropout", [first, _HALF, _DRAW], [f"{row}/dropped", row_mask], seed=2 * seed + 1),
            _node("Where", [row_mask, up, down], [row]),
            _node("Mul", [source, row], [target]),
        ]
    nodes = [
        _node("Dropout", [source, _HALF, _DRAW], [f"{each}/dropped", mask], seed=2 * seed + 1),
        _node("Where", [mask, up, down], [each]),
        _node("Gather", [source, _FIRST], [first], axis=-1),
        _node("Dropout", [first, _HALF, _DRAW], [f"{row}/dropped", row_mask], seed=2 * seed + 2),
        _node("Where", [row_mask, row_up, row_down], [row]),
        _node("Mul", [source, each], [once]),
    ]
    size = value.size if isinstance(value.size, str) else _number(value)
    if value.size is None or (isinstance(value.size, str) and size not in known):
        return [*nodes, _node("Mul", [once, row], [target])]
    return [
        *nodes,
        _node("Mul", [once, row], [twice]),
        _node("Where", [mask, plus, minus], [sign]),
        _node("Mul", [sign, size], [more]),
        _node("Add", [twice, more], [target]),
    ]


def _node(op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: int) -> NodeProto:
    import onnx

    node: Any = onnx.NodeProto(op_type=op, input=inputs, output=outputs)
    for name, value in attributes.items():
        node.attribute.append(onnx.AttributeProto(name=name, type=onnx.AttributeProto.INT, i=value))
    return node


def _reads(node: Any, renamed: Mapping[str, str]) -> None:
    """Let a node, and the graphs inside of it, read other names."""
    for index, name in enumerate(node.input):
        if name in renamed:
            node.input[index] = renamed[name]
    for attribute in node.attribute:
        for inner in attribute.g.node if attribute.HasField("g") else ():
            _reads(inner, renamed)


def allowances(
    found: Mapping[str, Array], runs: Sequence[Mapping[str, Array]], wheres: Mapping[str, Array]
) -> Mapping[str, Array]:
    """Allowed error of each output: `found` is the graph's own result, `runs` those of the copy."""
    allowed: dict[str, Array] = {}
    for name, where in wheres.items():
        own = found[name]
        if own.dtype.kind != "f":
            allowed[name] = np.zeros((1,) * own.ndim)
            continue
        # What its own last move comes to is known; that of all moves before it can cancel it in every run.
        squares: Array = (EACH * unit_roundoff(own.dtype.name) * own.astype(np.float64)) ** 2
        for run in runs:
            with np.errstate(all="ignore"):
                squares += (run[name].astype(np.float64) - own) ** 2 / len(runs)
        allowed[name] = allowance(squares, where)
    return allowed


def ties(routers: Sequence[Router], runs: Sequence[Mapping[str, Array]]) -> Array | None:
    """Tokens whose last chosen expert is no further before the next than rounding moves scores; None without routers.

    bool [batch, new tokens].
    """
    tied: Array | None = None
    for router in routers:
        scores = np.stack([run[router.scores].astype(np.float64) for run in runs])
        squares = scores.var(axis=0)
        middle = np.sort(scores.mean(axis=0), axis=-1)[..., ::-1]
        if middle.shape[-1] <= router.top:
            continue
        margin = middle[..., router.top - 1] - middle[..., router.top]
        spread = np.sqrt(row_means(squares, np.ones((1,) * squares.ndim, bool))[..., 0])
        here = margin <= SURE * spread
        tied = here if tied is None else tied | here
    return tied
