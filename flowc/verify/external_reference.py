"""A reference from outside: arrays that somebody else computed, or HuggingFace's own model.

An .npz holds, for each case, a graph's inputs and its expected outputs under their names, with `CASE/` before them
when there are several cases:

    short/input_ids  short/attention_mask  short/logits  short/present.0.key  …

Which graph a case is for follows from its inputs: with `past_key_values.*` decode or unified, else prefill, unified or
encode. Beside outputs, an array may have the name of a stage (`repeat.layers.0.llama_decoder`), whose result it is
then, or of a value inside of the graph. Names that no graph has are refused, so that a typo cannot pass for agreement.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flowc.errors import CheckFailed, MissingTool, SpecError, nearest
from flowc.ir.dtypes import numpy_dtype
from flowc.ir.graph import Graph, Node, Value
from flowc.ir.phases import going_on, starting
from flowc.ir.types import TensorType
from flowc.outside.foreign import foreign
from flowc.outside.reading import Unreadable, reason_of
from flowc.spec.components import refuse_components
from flowc.verify.checks import Checks
from flowc.verify.compare import Deviation
from flowc.verify.inputs import Array, Call
from flowc.verify.locate import source_in_file
from flowc.verify.stage_results import comparable, stage_paths
from flowc.weights.npy import read_npz

ABSOLUTE, RELATIVE = 1e-4, 1e-5
"""Allowed error against another implementation: six times the noise between two of HuggingFace's own."""


@dataclass(frozen=True, slots=True)
class Case:
    """What a graph is fed, and what it should give."""

    name: str
    phase: str
    feeds: Mapping[str, Array]
    expected: Mapping[str, Array]


def check_against(checks: Checks, reference: Path, tolerance: float | None = None) -> None:
    """Compare graphs with a reference from outside; results go to `checks`."""
    spec = checks.subject.compiled.spec
    refuse_components(spec.name, bool(spec.main.name), "yet compare (--against)")
    if reference.is_dir():
        cases = list(_from_huggingface(checks, reference))
    elif reference.suffix == ".npz":
        cases = list(_from_arrays(checks, reference))
    else:
        raise SpecError.of("bad-input", f"'{reference}' is neither an .npz nor a HuggingFace folder")
    for case in cases:
        _compare(checks, case, ABSOLUTE if tolerance is None else tolerance)


def _compare(checks: Checks, case: Case, absolute: float) -> None:
    batch, new = _tokens(case)
    mask = np.asarray(case.feeds.get("attention_mask", new), bool)
    call = Call(f"reference {case.name}", case.phase, case.feeds, mask[:, mask.shape[1] - new.shape[1] :], mask)
    held = [one for one in comparable(checks.subject, case.phase) if one.name in case.expected]
    inner = [one.in_file for one in held if one.inside]
    found = checks.subject.inner(call, inner) if inner else checks.subject.run(call)
    compared = [_apart(call, case, one.name, one.kind, found[one.in_file], absolute) for one in held]
    wrong = next((d for d in compared if not d.good), None)
    if wrong is None:
        worst = max(compared, key=lambda d: d.ratio)
        checks.passed("reference", case.phase, f"{case.name}, {batch} rows", worst)
        return
    count = sum(not d.good for d in compared)
    first = f", the first of {count} arrays that do, in the order of the graph" if count > 1 else ""
    node = _node(checks.subject.meanings[case.phase], wrong.name)
    stage = node.origin.stage if node is not None else ""
    source = source_in_file(checks.subject.files[case.phase], stage) if stage else ""
    place = f"; stage '{stage}' stands at {source}" if source else ""
    message = f"the {case.phase} graph differs from the reference ({case.name}): {wrong}{first}{place}"
    checks.fail("wrong-numbers", "reference", case.phase, message, wrong, stage=stage)


def _node(graph: Graph, name: str) -> Node | None:
    """The operator that makes an output, a stage's result or a value inside of a graph."""
    outputs = {output.name: output.value for output in graph.outputs}
    made = {value: node for node in graph.nodes for value in node.outputs}
    by_name = {value.name: node for value, node in made.items()}
    return (
        made[outputs[name]]
        if name in outputs and outputs[name] in made
        else (stage_paths(graph).get(name) or by_name.get(name))
    )


def _apart(call: Call, case: Case, name: str, kind: TensorType, got: Array, absolute: float) -> Deviation:
    """How far an output is from the reference, at its worst place."""
    wanted = case.expected[name]
    if got.shape != wanted.shape:
        return Deviation(name, float("inf"), 0.0, f"shape {list(got.shape)}, expected {list(wanted.shape)}")
    where = np.broadcast_to(call.valid(kind), got.shape)
    error = np.abs(got[where].astype(np.float64) - wanted[where].astype(np.float64))
    if not error.size:
        return Deviation(name, 0.0, 1.0)
    allowed = absolute + RELATIVE * np.abs(wanted[where].astype(np.float64))
    at = int(np.argmax(np.where(np.isfinite(error), error / allowed, np.inf)))
    if not np.isfinite(error[at]):
        return Deviation(name, float("inf"), 0.0, "not finite")
    return Deviation(name, float(error[at]), float(allowed[at]))


def _tokens(case: Case) -> tuple[int, Array]:
    """Rows, and an array of ones of the shape [batch, new tokens]."""
    first = next(iter(case.feeds.values()))
    ids = case.feeds.get("input_ids")
    new = np.ones(ids.shape if ids is not None else (len(first), 1), np.int64)
    return len(first), new


# Arrays


def _from_arrays(checks: Checks, path: Path) -> Iterator[Case]:
    try:
        arrays = read_npz(path)
    except (OSError, Unreadable) as error:
        raise SpecError.of("bad-input", f"cannot read {path}: {reason_of(error)}") from None
    cases: dict[str, dict[str, Array]] = {}
    for key, array in arrays.items():
        case, _, name = key.rpartition("/")
        cases.setdefault(case, {})[name] = array
    if not cases:
        raise SpecError.of("bad-input", f"{path} holds no arrays")
    for name, held in cases.items():
        yield _case(checks, name or path.stem, held)


def _case(checks: Checks, name: str, held: Mapping[str, Array]) -> Case:
    phase = _phase(checks, name, held)
    graph = checks.subject.graphs[phase]
    inputs = {v.name for v in graph.inputs}
    known = comparable(checks.subject, phase)
    outputs = {one.name for one in known}
    ports = inputs | {one.name for one in known if not one.inside}
    for key in held:
        if key not in inputs | outputs:
            hint = nearest(key, inputs | outputs) or f"it has {', '.join(sorted(ports)[:8])}"
            message = f"the {phase} graph has no input, output, stage or value '{key}' (case '{name}')"
            if key in stage_paths(checks.subject.meanings[phase]):
                message = f"the {phase} graph does not compute all of what the stage '{key}' gives (case '{name}')"
                hint = "build with --logits all, or leave the last layer's result out"
            raise SpecError.of("bad-input", message, hint=hint)
    feeds = {n: held[n] for n in inputs if n in held}
    ids = feeds.get("input_ids")
    if "attention_mask" in inputs and "attention_mask" not in feeds and ids is not None and len(feeds) == 1:
        feeds["attention_mask"] = np.ones(ids.shape, np.int64)
    if graph.cache_ports.isdisjoint(feeds):
        batch = len(next(iter(feeds.values()))) if feeds else 1
        feeds |= {v.name: _nothing(v, batch) for v in graph.inputs if v.name in graph.cache_ports}
    missing = sorted(inputs - feeds.keys())
    if missing:
        raise SpecError.of("bad-input", f"case '{name}' lacks the input {', '.join(missing[:4])} of the {phase} graph")
    expected = {n: held[n] for n in outputs if n in held}
    if not expected:
        raise SpecError.of("bad-input", f"case '{name}' holds no output of the {phase} graph")
    return Case(name, phase, feeds, expected)


def _nothing(value: Value, batch: int) -> Array:
    """A cache before the first token."""
    sizes = [batch, *(dim if isinstance(dim, int) else 0 for dim in value.type.shape[1:])]
    return np.zeros(sizes, numpy_dtype(value.type.dtype))


def _phase(checks: Checks, name: str, held: Mapping[str, Array]) -> str:
    phases = checks.subject.graphs
    pasts = {slot.past for graph in phases.values() for slot in graph.states}
    one = "input_ids" in held and held["input_ids"].shape[1] == 1
    able = going_on(phases, int(one)) if pasts.intersection(held) else starting(phases)
    if able:
        return able[0]
    raise SpecError.of("missing-graph", f"the model has no graph that takes the inputs of case '{name}'")


# HuggingFace


def _from_huggingface(checks: Checks, folder: Path) -> Iterator[Case]:
    """Logits (or hidden states) of HuggingFace's model, eager and in float32, on a ragged batch."""
    try:
        torch: Any = importlib.import_module("torch")
        transformers: Any = importlib.import_module("transformers")
    except ImportError:
        raise MissingTool.of(
            "missing-tool",
            "comparing with HuggingFace needs torch and transformers",
            hint="pip install 'flowc[parity]'",
        ) from None
    subject = checks.subject
    starts = starting(subject.graphs)
    if not starts:
        raise SpecError.of("missing-graph", "the model has no graph that starts from nothing")
    phase = starts[0]
    auto = transformers.AutoModelForCausalLM if subject.graphs[phase].phase.emits_cache else transformers.AutoModel
    with foreign(lambda why: CheckFailed.of("bad-input", f"HuggingFace cannot load {folder}: {why}")):
        model = auto.from_pretrained(
            str(folder), attn_implementation="eager", dtype=torch.float32, local_files_only=True
        ).eval()
    drawn = subject.feeder.draw(2, 9, 11)
    mask = np.ones((2, 9), np.int64)
    mask[1, 6:] = 0
    call = subject.feeder.call("huggingface", phase, drawn, mask)
    states = subject.graphs[phase].cache_ports
    given = {k: torch.from_numpy(v) for k, v in call.feeds.items() if k not in states}
    with torch.no_grad():
        results = model(**given)
    expected: dict[str, Array] = {}
    for output in subject.graphs[phase].outputs:
        value = getattr(results, output.name, None)
        if value is not None and hasattr(value, "numpy"):
            expected[output.name] = _as_ours(value.numpy(), output.value.shape, mask)
    if not expected:
        raise SpecError.of("bad-input", f"HuggingFace's model gives none of the outputs of the {phase} graph")
    yield Case(folder.name, phase, call.feeds, expected)


def _as_ours(theirs: Array, shape: tuple[int | str, ...], mask: Array) -> Array:
    """All logits, cut to each row's last token where the graph gives only that."""
    if len(shape) == 3 and shape[1] == 1 and theirs.shape[1] != 1:
        last = mask.shape[1] - 1 - np.argmax(mask[:, ::-1], axis=1)
        return theirs[np.arange(len(theirs)), last][:, None]
    return theirs
