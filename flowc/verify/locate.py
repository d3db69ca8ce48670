"""Which stage is the first to go wrong, and whether a pass or the lowering is to blame.

A copy of the graph gives out the values inside of it; they carry the names of the IR's values. Two comparisons tell
them apart:

    passes      interpret(before passes) against interpret(after passes): a pass changed the meaning
    lowering    each operator of the graph, by its meaning, on the very numbers that onnxruntime fed it: an error does
                not travel, so the first operator that is off is the one at fault, however deep the model
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from flowc.errors import Span
from flowc.ir.graph import Graph, Node, Value
from flowc.ir.interpret import interpret
from flowc.ir.types import BATCH, SEQUENCE, TOTAL
from flowc.outside.foreign import one_line
from flowc.passes.pipeline import run
from flowc.runtime.session import graph_file
from flowc.verify.built_model import BuiltModel, names_in_file
from flowc.verify.compare import Deviation, compare
from flowc.verify.inputs import Call
from flowc.verify.rounding import PROBES, allowance, moved, operator_allowance, unit_roundoff

Array = np.ndarray[Any, np.dtype[Any]]

INNER_BYTES = 1 << 28
"""Values that a copy of a graph gives out at once."""

FREE = 512
"""What a size counts for that a call does not tell, such as the patches of an image."""


@dataclass(frozen=True, slots=True)
class Location:
    """The first place where numbers go wrong."""

    stage: str
    operator: str
    value: str
    span: Span | None
    source: str
    error: float
    before: float
    culprit: str
    """`lowering`, or `pass NAME`."""

    def __str__(self) -> str:
        place = f" ({self.source})" if self.source else ""
        return (
            f"first wrong at stage '{self.stage}'{place}, {self.operator} '{self.value}': "
            f"error {self.error:.2g} there, {self.before:.2g} before; {self.culprit}"
        )

    def as_json(self) -> dict[str, object]:
        """The same as plain values."""
        return {
            "stage": self.stage, "operator": self.operator, "value": self.value, "source": self.source,
            "error": self.error, "before": self.before, "culprit": self.culprit,
        }  # fmt: skip


def locate(subject: BuiltModel, call: Call) -> Location | None:
    """The first place where a failing call goes wrong; None when no single place does."""
    return not_finite(subject, call) or wrong_pass(subject, call) or wrong_lowering(subject, call)


def not_finite(subject: BuiltModel, call: Call) -> Location | None:
    """The first operator that makes NaN or infinity, where the spec itself means a result that is not finite."""
    found: list[Node] = []

    def watch(node: Node, results: tuple[Array, ...]) -> None:
        if node.op.specified_at_padding:  # a mask, whose infinities are meant
            return
        for value, array in zip(node.outputs, results, strict=True):
            if array.dtype.kind == "f" and not np.isfinite(array).all():
                specified = array[np.broadcast_to(call.valid(value.type), array.shape)]
                if not np.isfinite(specified).all():
                    found.append(node)

    outputs = subject.reference(call, watch)
    if not found or all(np.isfinite(array).all() for array in outputs.values() if array.dtype.kind == "f"):
        return None
    nowhere = Deviation(found[0].outputs[0].name, float("inf"), 0.0)
    return place(subject, call, found[0], nowhere, 0.0, "the spec itself gives no finite number here")


def sweep(
    subject: BuiltModel, call: Call, want: Callable[[Node], bool] = lambda _: True,
    seen: Callable[[Mapping[str, Array]], None] = lambda _: None,
) -> Iterator[tuple[Node, Deviation]]:  # fmt: skip
    """Compare each wanted operator with its meaning, fed what onnxruntime fed it, in the order of the graph.

    `seen` gets what each run of the graph gave, its outputs too.

    onnxruntime gives out as many values at once as fit in `INNER_BYTES`, and one operator's weights are in memory.
    """
    graph, made = subject.graphs[call.phase], subject.made(call.phase)
    names, producers = names_in_file(graph), graph.producers()

    def needed(values: Iterable[Value | None]) -> set[str]:
        """Names of values, or of those that an unnamed one is worked out from."""
        found: set[str] = set()
        for value in values:
            if value is None or value not in producers:
                continue
            if names[value] in made:
                found.add(names[value])
            else:
                found |= needed(producers[value].inputs)
        return found

    for chunk in _chunks([n for n in graph.nodes if want(n)], call):
        inner = subject.inner(call, needed(v for n in chunk for v in (*n.outputs, *n.inputs)))
        seen(inner)
        yield from _operators(subject, call, chunk, inner)


def _chunks(nodes: Sequence[Node], call: Call) -> Iterator[list[Node]]:
    sizes = {BATCH: len(call.new), SEQUENCE: call.new.shape[1], TOTAL: call.total.shape[1]}
    chunk: list[Node] = []
    held = 0
    for node in nodes:
        bytes_out = (
            sum(prod(d if isinstance(d, int) else sizes.get(d, FREE) for d in v.shape) for v in node.outputs) * 4
        )
        if chunk and held + bytes_out > INNER_BYTES:
            yield chunk
            chunk, held = [], 0
        chunk.append(node)
        held += bytes_out
    if chunk:
        yield chunk


def _operators(
    subject: BuiltModel, call: Call, wanted: Sequence[Node], inner: Mapping[str, Array]
) -> Iterator[tuple[Node, Deviation]]:
    """The comparison, from what onnxruntime gave (`inner`, by ONNX name). What has no name there is worked out."""
    graph, made = subject.graphs[call.phase], subject.made(call.phase)
    names = names_in_file(graph)
    have: dict[Value, Array] = {v: call.feeds[v.name] for v in graph.inputs}
    guessed: set[Value] = set()
    last = {v: i for i, node in enumerate(graph.nodes) for v in node.inputs if v is not None}
    chosen = set(wanted)
    for index, node in enumerate(graph.nodes):
        found = {v: _specified(inner[names[v]], call.valid(v.type)) for v in node.outputs if names[v] in inner}
        known = all(v in have for v in node.inputs if v is not None and v.weight is None)
        unnamed = any(names[v] not in made for v in node.outputs)
        if known and (node in chosen or unnamed):
            operands = [
                None if v is None else have[v] if v.weight is None else subject.weight(v.weight) for v in node.inputs
            ]
            try:
                with np.errstate(all="ignore"):
                    results = node.op.reference(*operands)
            except Exception as error:  # a damaged graph feeds it shapes that no sound one has
                note = f"what onnxruntime fed it does not fit: {one_line(error)}"
                yield node, Deviation(names[node.outputs[0]], float("inf"), 0.0, note)
                return
            if node in chosen and found:
                wheres = [_where(subject, call, node, v, names[v]) for v in node.outputs]
                undecided = node.op.undecided(operands)
                if undecided is not None:
                    wheres = [
                        w & ~undecided.reshape(*undecided.shape, *(1,) * (w.ndim - undecided.ndim)) for w in wheres
                    ]
                fed = [v is not None and v.weight is None for v in node.inputs]
                known = not any(v in guessed for v in node.inputs)
                with np.errstate(all="ignore"):
                    allowed = operator_allowance(node.op, operands, fed, results, wheres, known=known)
                for value, result, where, error in zip(node.outputs, results, wheres, allowed, strict=True):
                    if value in found:
                        yield node, compare(names[value], found[value], result, where, error)
            for value, result in zip(node.outputs, results, strict=True):
                have[value] = found.get(value, result)
                if value not in found:
                    guessed.add(value)
        else:
            have.update(found)
        for value in {v for v in node.inputs if v is not None and last[v] == index}:
            have.pop(value, None)


def _where(subject: BuiltModel, call: Call, node: Node, value: Value, name: str) -> Array:
    """Where a result of an operator is specified."""
    if node.op.specified_at_padding:
        return call.valid(value.type, mask=True)
    return subject.specified(call, name, value.type)


def _specified(array: Array, where: Array) -> Array:
    """An array without what a kernel left undefined at padding, which a reference would carry on."""
    if array.dtype.kind != "f" or np.isfinite(array).all():
        return array
    return np.where(where | np.isfinite(array), array, array.dtype.type(0))


def wrong_lowering(subject: BuiltModel, call: Call) -> Location | None:
    """The first operator whose ONNX form does not do what it means."""
    before = 0.0
    for node, deviation in sweep(subject, call):
        if not deviation.good:
            return place(subject, call, node, deviation, before, "the pass pipeline is right, its lowering is not")
        before = max(before, deviation.error)
    return None


def place(subject: BuiltModel, call: Call, node: Node, deviation: Deviation, before: float, culprit: str) -> Location:
    """A location at a node."""
    origin = node.origin
    source = source_in_file(subject.files[call.phase], origin.stage) or str(origin.span or "")
    return Location(origin.stage, node.op.name, node.outputs[0].name, origin.span, source,
                    deviation.error, before, culprit)  # fmt: skip


def source_in_file(file: Path, stage: str) -> str:
    """Where a stage stands in the spec, as the graph file says it; empty when it does not."""
    for node in graph_file(file).graph.node:
        properties = {p.key: p.value for p in node.metadata_props}
        if properties.get("flowc.stage") == stage and "flowc.source" in properties:
            return properties["flowc.source"]
    return ""


def after_each_pass(subject: BuiltModel, phase: Any) -> dict[str, Graph]:
    """The graph after each pass that changed it, in order."""
    compiled = subject.compiled
    steps: dict[str, Graph] = {}
    run(compiled.expanded[phase], compiled.pass_context, compiled.request.skip_passes, steps.__setitem__)
    return steps


def wrong_pass(subject: BuiltModel, call: Call) -> Location | None:
    """The first pass that changed the numbers, and the first value where it did."""
    compiled = subject.compiled
    if compiled.expanded[call.phase] is not subject.meanings[call.phase]:
        return None
    expected, own = subject.reference(call), subject.run(call)
    after = interpret(compiled.graphs[call.phase], call.feeds, subject.read)
    if all(d.good for d in subject.outputs_differ(call, after, expected, own)):
        return None
    steps: dict[str, Graph] = {"expand": compiled.expanded[call.phase], **after_each_pass(subject, call.phase)}
    before = steps.pop("expand")
    culprit = "the graphs in memory are not what the pipeline makes"
    for name, graph in steps.items():
        found = interpret(graph, call.feeds, subject.read)
        if not all(d.good for d in subject.outputs_differ(call, found, expected, own)):
            culprit = f"pass {name} changes the numbers"
            return first_difference(subject, call, before, graph, culprit)
        before = graph
    return first_difference(subject, call, before, compiled.graphs[call.phase], culprit)


def first_difference(subject: BuiltModel, call: Call, before: Graph, after: Graph, culprit: str) -> Location | None:
    """The first value of the same name and type that two graphs compute differently."""
    known: dict[str, tuple[Any, Array]] = {}
    squares: dict[str, Array] = {}

    def remember(node: Node, results: tuple[Array, ...]) -> None:
        known.update({v.name: (v.type, a) for v, a in zip(node.outputs, results, strict=True)})

    def measure(node: Node, results: tuple[Array, ...]) -> None:
        for value, array in zip(node.outputs, results, strict=True):
            if array.dtype.kind == "f":
                error = (array.astype(np.float64) - known[value.name][1]) ** 2 / PROBES
                squares[value.name] = squares.get(value.name, 0.0) + error

    interpret(before, call.feeds, subject.read, remember)
    for probe in range(PROBES):
        interpret(before, call.feeds, subject.read, measure, _disturbing(probe))
    found: list[tuple[Node, Deviation]] = []

    def watch(node: Node, results: tuple[Array, ...]) -> None:
        for value, array in zip(node.outputs, results, strict=True):
            kind, expected = known.get(value.name, (None, None))
            if expected is not None and kind == value.type:
                where = call.valid(value.type)
                allowed = allowance(squares.get(value.name, np.zeros(array.shape)), where)
                found.append((node, compare(value.name, array, expected, where, allowed)))

    interpret(after, call.feeds, subject.read, watch)
    worst = 0.0
    for node, deviation in found:
        if not deviation.good:
            return place(subject, call, node, deviation, worst, culprit)
        worst = max(worst, deviation.error)
    return None


def _disturbing(seed: int) -> Callable[[Node, tuple[Array, ...]], tuple[Array, ...]]:
    """Moves every result of a run of the interpreter by about a rounding."""
    rng = np.random.default_rng(seed)

    def change(node: Node, results: tuple[Array, ...]) -> tuple[Array, ...]:
        return tuple(
            moved(array, unit_roundoff(array.dtype.name), rng) if array.dtype.kind == "f" else array
            for array in results
        )

    return change
