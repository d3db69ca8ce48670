"""The path of a build on one screen: spec, checkpoint, stages, IR, passes, lowering, files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from flowc import __version__
from flowc.errors import CheckFailed, Diagnostics, FlowError, WeightsError, nearest
from flowc.ir.graph import Graph
from flowc.ir.verify import verify
from flowc.passes.pipeline import PIPELINE, Audit, Context, run
from flowc.phases import expand, is_decoder, phases_of
from flowc.read_top import load
from flowc.slots import Names, Options
from flowc.source import MapNode
from flowc.spec import METADATA_SYMBOLS, Phase, Spec
from flowc.stage import load_all
from flowc.weights import Checkpoint, open_checkpoint
from flowc.weights.random import RandomCheckpoint

Watch = Callable[[Phase, str, Graph], None]
"""Sees a phase's graph: after expansion ('expand') and after each pass that changed it."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asks for."""

    spec: Path
    weights: Path | None = None
    target: str = "ort-cpu"
    graphs: tuple[str, ...] = ()
    options: Options = field(default_factory=Options)
    skip_passes: tuple[str, ...] = ()
    in_place: bool = False
    """Weights are to be used where they lie, so passes change and pack none of them that they can leave alone."""


@dataclass(slots=True)
class Compiled:
    """Graphs of a spec, ready to be lowered, with all that later rooms need."""

    request: Request
    spec: Spec
    checkpoint: Checkpoint | None
    names: Names
    expanded: dict[Phase, Graph] = field(default_factory=dict[Phase, Graph])
    """Graphs before any pass: the meaning of the spec."""
    graphs: dict[Phase, Graph] = field(default_factory=dict[Phase, Graph])
    audits: dict[Phase, Mapping[str, Audit]] = field(default_factory=dict[Phase, Mapping[str, Audit]])

    @property
    def context_length(self) -> int | None:
        """The context length asked for: --context, else the model's."""
        return self.request.options.context or self.spec.integer("context_length")


def compile_spec(
    request: Request,
    watch: Watch | None = None,
    *,
    need_weights: bool = True,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Compiled:
    """Everything before lowering. Raises FlowError with all that is wrong with spec and weights.

    Without `need_weights` a missing weights file is no error: tensors are then those of `shapes`, or, without them
    too, believed to be as declared.
    """
    from flowc.lowering.targets import target

    load_all()
    problems = Diagnostics()
    spec = load(request.spec, problems)
    phases = _phases(spec, request.graphs)
    target(request.target)  # an unknown one is told before all else
    checkpoint, names = None, Names(None)
    names.shapes = shapes
    try:
        checkpoint = _open(spec, request, need_weights)
    except FlowError as error:
        problems.include(error)
        names.unreadable = True
    if checkpoint is not None:
        random = isinstance(checkpoint, RandomCheckpoint)
        names.shapes = None if random else {n: t.shape for n, t in checkpoint.tensors().items()}
    compiled = Compiled(request, spec, checkpoint, names)
    for phase in phases:
        graph = expand(spec, phase, names, request.options, problems)
        if graph is not None:
            verify(graph, "expand")
            compiled.expanded[phase] = graph
            if watch is not None:
                watch(phase, "expand", graph)
    _account(compiled, problems)
    problems.raise_if_any()
    if isinstance(checkpoint, RandomCheckpoint):
        for name, (shape, _) in names.used.items():
            checkpoint.declare(name, shape)
    context = pass_context(compiled)
    for phase, graph in compiled.expanded.items():
        seen = partial(watch, phase) if watch is not None else None
        compiled.graphs[phase], compiled.audits[phase] = run(graph, context, request.skip_passes, seen)
    _expected(compiled)
    return compiled


def pass_context(compiled: Compiled) -> Context:
    """What the passes of a compilation may know beside the graph."""
    from flowc.lowering.targets import target

    request = compiled.request
    return Context(target(request.target), request.options.assume, compiled.context_length, request.in_place)


def _open(spec: Spec, request: Request, need: bool) -> Checkpoint | None:
    if request.weights is not None:
        return open_checkpoint(request.weights)
    declared = spec.weights
    if declared is not None and declared.random is not None:
        return RandomCheckpoint(declared.random)
    path = spec.weights_path()
    if path is None or declared is None:
        if need:
            hint = "`weights: {file: ...}` in the spec, or --weights; `weights: {random: 0}` to try it out"
            raise WeightsError.of("no-weights", "the spec names no weights", spec.root.span, hint)
        return None
    if not need and not os.path.exists(path):  # unlike Path.exists, it never raises
        return None
    return open_checkpoint(path, span=declared.span)


def _phases(spec: Spec, asked: tuple[str, ...]) -> list[Phase]:
    possible = phases_of(spec)
    problems = Diagnostics()
    for phase, flow in spec.flows.items():
        if phase != "*" and phase not in possible:
            kind = "decoder" if is_decoder(spec) else "encoder"
            message = f"the spec is of kind '{kind}', so its flow '{phase}' would never be built"
            problems.error("wrong-phase", message, flow.span)
    for graph in asked:
        if graph not in possible:
            hint = f"it has {', '.join(possible) or 'none at all'}"
            problems.error("unknown-graph", f"this spec has no graph '{graph}'", hint=hint)
    problems.raise_if_any()
    return [p for p in possible if not asked or p in asked]


def _account(compiled: Compiled, problems: Diagnostics) -> None:
    """Everything that the spec and the weights give is used; what is left over was a mistake, or is named as spare."""
    spec, asked = compiled.spec, compiled.request.graphs
    if problems or (asked and "*" not in spec.flows):  # what a graph that was not asked for uses is not known
        return
    for name, symbol in spec.model.items():
        if name not in spec.used_symbols and name not in METADATA_SYMBOLS:
            hint = nearest(name, spec.used_symbols - spec.model.keys())
            problems.error("unused-symbol", f"nothing reads the model symbol '{name}'", symbol.span, hint)
    for declared in spec.inputs:
        if declared.name not in compiled.names.ports:
            message = f"no stage reads the input '{declared.name}'"
            problems.error("unused-input", message, declared.span, nearest(declared.name, compiled.names.ports))
    renamed = spec.root.get("rename")
    for entry in renamed.entries if isinstance(renamed, MapNode) else ():
        if entry.name not in compiled.names.ports:
            hint = nearest(entry.name, compiled.names.ports) or f"it has {', '.join(sorted(compiled.names.ports)[:8])}"
            message = f"no graph has an input or output '{entry.name}' to rename"
            problems.error("unknown-port", message, entry.key.span, hint)
        if (new := spec.rename.get(entry.name)) in compiled.names.ports and new != entry.name:
            message = f"'{entry.name}' cannot be called '{new}', which means another input or output"
            problems.error("taken-port", message, entry.value.span)
    patterns = spec.weights.allow_unused if spec.weights else ()
    spare = compiled.names.unused(patterns)
    if spare:
        shown = ", ".join(spare[:8]) + (f" and {len(spare) - 8} more" if len(spare) > 8 else "")
        message = f"no stage uses {len(spare)} tensor{'s' if len(spare) > 1 else ''} of the weights: {shown}"
        hint = "if that is meant, list patterns under `weights: {allow_unused: [...]}`"
        span = spec.weights.span if spec.weights else spec.root.span
        problems.error("unused-weights", message, span, hint, kind=WeightsError)


def _expected(compiled: Compiled) -> None:
    """Check `expect:`: each pass that it names fired as often as it says, and for `all` missed no place."""
    problems = Diagnostics()
    expected = compiled.spec.root.get("expect")
    known = [step.__name__ for step in PIPELINE]
    for entry in expected.entries if isinstance(expected, MapNode) else ():
        if entry.name not in known:
            hint = nearest(entry.name, known) or f"passes: {', '.join(known)}"
            problems.error("unknown-pass", f"there is no pass '{entry.name}'", entry.key.span, hint)
            continue
        wanted = compiled.spec.expect[entry.name]
        audits = {p: a[entry.name] for p, a in compiled.audits.items() if entry.name in a}
        counts = ", ".join(f"{len(audit.fired)} times in {phase}" for phase, audit in audits.items())
        if wanted == "all":
            met = any(a.fired for a in audits.values()) and not any(a.missed for a in audits.values())
        else:
            # As `flowc explain` counts: a place that several graphs have in common counts once.
            met = bool(audits) and len({place for a in audits.values() for place in a.fired}) == wanted
        if not met:
            missed = [(f"in {phase}, {where}: {why}", None) for phase, a in audits.items() for where, why in a.missed]
            message = f"pass '{entry.name}' was expected to fire {wanted if wanted == 'all' else f'{wanted} times'}"
            message += f"; it fired {counts}" if audits else ", but it was left out (--no-pass)"
            problems.error(
                "missed-expectation", message, entry.value.span, notes=tuple(missed[:5]), kind=CheckFailed
            )  # fmt: skip
    problems.raise_if_any()


def _assumed(graph: Graph, asked: str) -> str:
    """What a graph assumes: right padding only where its cache became compact; without a past, what was asked for."""
    aligned = not any(getattr(node.op, "compact", False) for node in graph.nodes)
    return "none" if asked == "right-padding" and aligned and graph.phase in ("decode", "unified") else asked


def metadata(compiled: Compiled, phase: Phase) -> dict[str, str]:
    """What every graph file says about itself (`metadata_props`)."""
    from flowc.lowering.targets import target

    spec, request, graph = compiled.spec, compiled.request, compiled.graphs[phase]
    facts = {
        "flowc.version": __version__,
        "flowc.spec_sha256": spec.sha256(),
        "flowc.target": request.target,
        "flowc.graph": phase,
        "flowc.assume": _assumed(graph, request.options.assume),
        "flowc.min_onnxruntime": target(request.target).min_onnxruntime,
    }
    if "cache" in graph.facts:
        facts["flowc.cache"] = graph.facts["cache"]
    vocab = graph.facts.get("vocab_size") or spec.symbol("vocab")
    eos = spec.symbol("eos")
    for key, value in (
        ("vocab_size", vocab),
        ("context_length", compiled.context_length),
        ("eos_token_id", ",".join(map(str, eos)) if isinstance(eos, list) else eos),  # pyright: ignore[reportUnknownArgumentType]
    ):
        if value is not None:
            facts[key] = str(value)
    return facts
