"""The checks that a build can afford, on every build that does not decline them.

    files       the graph files have the hashes of the manifest, and the data file its size
    load        each graph loads in onnxruntime, with the inputs and outputs that the IR declares
    numbers     a short ragged batch through every graph, a step and several tokens over its past: small models against
                the interpreter; of large ones one layer of each kind, operator by operator
    pair        prefill and decode give what unified gives
    alone       a padded row gives what it gives alone

What is checked depends on the model only, never on the clock, so that the same build writes the same manifest.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from flowc.build.compiled import Compiled
from flowc.build.files import graph_file
from flowc.ir.graph import Graph, Node
from flowc.ir.phases import going_on, starting, without_cache
from flowc.verify.built_model import BuiltModel
from flowc.verify.checks import Checks, Progress
from flowc.verify.files import check_files, check_ports
from flowc.verify.inputs import Call
from flowc.verify.locate import sweep

Array = np.ndarray[Any, np.dtype[Any]]

NOT_RUN = "not run: no kernels for these graphs on this machine; the kernels' meanings stand for them"

SMALL = 8_000_000
"""Numbers in the weights up to which a build interprets its graphs whole."""
MOST_IN_A_TABLE = 16_000_000
"""Numbers in a weight from which on a large model's operator is left to `flowc verify`: embeddings, mostly."""
COLUMNS, NEW = 6, 3


@np.errstate(all="ignore")  # a broken model's numbers are judged, not warned about
def check(manifest: Path, compiled: Compiled, progress: Progress | None = None) -> list[dict[str, Any]]:
    """Check a build in the folder of its manifest.

    Returns what was checked. Raises CheckFailed with everything that is wrong; numbers name the first wrong stage.
    """
    return checked(manifest, compiled, progress).as_json()


def checked(
    manifest: Path, compiled: Compiled, progress: Progress | None = None, subject: BuiltModel | None = None
) -> Checks:
    """The same, with the comparisons; of `subject`, where the original weights are not at hand."""
    stem = manifest.name.removesuffix(".flowc.json")
    files: dict[str, Path] = {p: manifest.parent / graph_file(Path(f"{stem}.onnx"), p) for p in compiled.graphs}
    subject = subject or BuiltModel(compiled, files)
    checks = Checks(subject, progress=progress)
    check_files(manifest, checks, whole=False)
    check_ports(subject, checks)
    checks.stop_if_any()
    return numbers(checks)


def numbers(checks: Checks) -> Checks:
    """The comparisons of numbers, component by component; raises CheckFailed with what is wrong."""
    for part in checks.parts():
        _numbers(part, checks)
    return checks


def _numbers(subject: BuiltModel, checks: Checks) -> None:
    small = parameters(subject.compiled) <= SMALL
    if not subject.runs_here:
        checks.passed("device", "", NOT_RUN if small else f"{NOT_RUN}; the weights are too large to interpret here")
        if not small:
            return
    results: dict[str, tuple[Call, dict[str, Array]]] = {}
    for call in calls(subject, results):
        checks.told("checking numbers", len(results), len(subject.graphs) + 1)
        by_layers = not small and call.label == call.phase
        inside = one_layer_of_each_kind(subject, call, checks) if by_layers else {}
        # Of the largest models each run counts: one that gives out inner values gives the outputs as well.
        found = inside if inside and subject.large else subject.run(call)
        results[call.label] = (call, found)
        checks.finite(call, found)
        if small:
            checks.against(call, found, subject.reference(call), "numbers")
    checks.stop_if_any()
    same(subject, checks, results)
    alone(subject, checks, results)
    checks.stop_if_any()


def parameters(compiled: Compiled) -> int:
    """Numbers in all weights of a build."""
    return sum({w.key: prod(w.shape) for graph in compiled.graphs.values() for w in graph.weights()}.values())


def ragged(rows: int, columns: int, assume: str) -> Array:
    """A mask [rows, columns]: the first row full, then padded on the left, then on the right, as far as assumed."""
    mask = np.ones((rows, columns), np.int64)
    if assume == "none" and rows > 1:
        mask[1, : columns // 3] = 0
    if assume != "no-padding":
        mask[2:, columns - columns // 2 :] = 0
    return mask


def calls(subject: BuiltModel, results: Mapping[str, tuple[Call, dict[str, Array]]]) -> Iterable[Call]:
    """The calls of a quick check; a later one takes the past that an earlier one left in `results`."""
    feeder, phases = subject.feeder, subject.compiled.graphs
    assume = subject.compiled.request.options.assume
    rows = 3 if feeder.takes_mask else 2
    room = subject.compiled.context_length or COLUMNS + NEW
    columns = max(1, min(COLUMNS, room - NEW if without_cache(phases) is None else room)) if feeder.takes_tokens else 1
    mask = ragged(rows, columns, assume) if feeder.takes_mask else np.ones((rows, columns), np.int64)
    for start in starting(phases):
        yield feeder.call(start, start, feeder.draw(rows, columns, 1), mask)
    steps = [
        (p, p, 1) if phases[p].phase.tokens == "one" else (f"{p} over a past", p, min(NEW, room - columns))
        for p in going_on(phases, 1)
    ]
    begun = next((found for _, found in results.values()), None)
    if assume == "right-padding":
        mask = np.ones_like(mask)
        begun = None
    # Of a large model, several tokens over a past are held to be finite alone: not worth a pass over the largest.
    for label, phase, new in steps:
        if (new == 1 or not subject.large) and 0 < new <= room - columns:
            if new > 1 and phases[phase].one_row_over_a_past:
                rows, mask, begun = 1, mask[:1], None
            past = feeder.past_of(begun) if begun else feeder.made_up_past(phase, rows, columns, 3)
            more = np.ones((rows, new), np.int64)
            if assume == "none" and feeder.takes_mask and new > 1:
                more[2, -1] = 0
            longer = np.concatenate([mask, more], axis=1)
            yield feeder.call(label, phase, feeder.draw(rows, columns + new, 1), longer, columns, past)


def same(subject: BuiltModel, checks: Checks, results: Mapping[str, tuple[Call, dict[str, Array]]]) -> None:
    """Prefill gives what unified gives, and decode what unified gives for one token over the same past."""
    graphs = subject.graphs
    first, *others = [name for name in starting(graphs) if name in results] or [""]
    for name in others:
        call, found = results[name]
        checks.against(call, found, results[first][1], "pair", f"{first} = {name}")
    # The largest models' decode graph was held to its meaning, operator by operator; the rest is `flowc verify`'s.
    one, *others = going_on(graphs, 1) or [""]
    for other in others if one in results and not subject.large else ():
        call, found = results[one]
        twin = Call(call.label, other, call.feeds, call.new, call.total)
        checks.against(twin, subject.run(twin), found, "pair", f"{one} = {other}")


def alone(subject: BuiltModel, checks: Checks, results: Mapping[str, tuple[Call, dict[str, Array]]]) -> None:
    """A row of the ragged batch gives what it gives alone, without its padding."""
    small = parameters(subject.compiled) <= SMALL
    labels = [label for label in starting(subject.graphs) if label in results]
    # A large model's unified graph was just found equal to its prefill on the same batch.
    for label in labels if small else labels[-1:]:
        call, found = results[label]
        for row in range(1, len(call.new)):
            # An encoder counts positions by columns (HF), so padding in front of a row moves it.
            if call.new[row, 0] or subject.graphs[label].phase.emits_cache:
                checks.alone(call, found, row)


def layer_of(node: Node) -> str:
    """The part of a stage's path up to the last index of a repeat: one name for all operators of a layer."""
    match = re.match(r"(.*?\.\d+)(\.|$)", node.origin.stage)
    return match[1] if match else node.origin.stage


def kinds_of_layers(graph: Graph) -> set[str]:
    """One layer of each kind: layers are of one kind when their operators are the same."""
    shapes: dict[str, list[Any]] = {}
    for node in graph.nodes:
        operands = [None if v is None else v.type for v in node.inputs]
        shapes.setdefault(layer_of(node), []).append((node.op, operands))
    kinds: dict[str, str] = {}
    for name, shape in shapes.items():
        kinds.setdefault(repr(shape), name)
    return set(kinds.values())


def one_layer_of_each_kind(
    subject: BuiltModel, call: Call, checks: Checks, *, tables: bool = False
) -> dict[str, Array]:
    """Hold the operators of one layer of each kind to their meaning, fed what onnxruntime fed them.

    Returns the outputs of the run that this takes. `tables`: the largest tables too.
    """
    graph = subject.graphs[call.phase]
    chosen = kinds_of_layers(graph)

    def want(node: Node) -> bool:
        heavy = max((prod(v.weight.shape) for v in node.inputs if v is not None and v.weight is not None), default=0)
        return layer_of(node) in chosen and (tables or heavy <= MOST_IN_A_TABLE)

    runs: list[Mapping[str, Array]] = []
    checks.operators(call, list(sweep(subject, call, want, runs.append)))
    return {output.name: runs[0][output.name] for output in graph.outputs} if runs else subject.run(call)
