"""The path of a build on one screen: spec, checkpoint, stages, IR, passes, lowering, files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from flowc import __version__
from flowc.errors import Diagnostics, SpecError, WeightsError
from flowc.expand import Names, Options, expand, phases_of
from flowc.ir.graph import Graph
from flowc.ir.verify import verify
from flowc.passes.pipeline import Audit, Context, run
from flowc.spec import Phase, Spec, load
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


def compile_spec(request: Request, watch: Watch | None = None, *, need_weights: bool = True) -> Compiled:
    """Everything before lowering. Raises FlowError with all that is wrong with spec and weights.

    Without `need_weights` a missing weights file is no error: every tensor is then believed to be as declared.
    """
    from flowc.lowering.targets import target

    load_all()
    spec = load(request.spec)
    checkpoint = _open(spec, request, need_weights)
    random = isinstance(checkpoint, RandomCheckpoint)
    names = Names(None if random or checkpoint is None else {n: t.shape for n, t in checkpoint.tensors().items()})
    compiled = Compiled(request, spec, checkpoint, names)
    problems = Diagnostics()
    for phase in _phases(spec, request.graphs):
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
    context = Context(target(request.target), request.options.assume, compiled.context_length)
    for phase, graph in compiled.expanded.items():
        seen = partial(watch, phase) if watch is not None else None
        compiled.graphs[phase], compiled.audits[phase] = run(graph, context, request.skip_passes, seen)
    return compiled


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
    if not need and not path.exists():
        return None
    return open_checkpoint(path, span=declared.span)


def _phases(spec: Spec, asked: tuple[str, ...]) -> list[Phase]:
    possible = phases_of(spec)
    wrong = [g for g in asked if g not in possible]
    if wrong:
        raise SpecError.of(
            "unknown-graph", f"this spec has no graph '{wrong[0]}'", hint=f"it has {', '.join(possible)}"
        )
    return [p for p in possible if not asked or p in asked]


def _account(compiled: Compiled, problems: Diagnostics) -> None:
    """Every tensor of the file is used, or named as unused; every model symbol is read by something."""
    spec = compiled.spec
    patterns = spec.weights.allow_unused if spec.weights else ()
    complete = not problems and not compiled.request.graphs
    spare = compiled.names.unused(patterns) if not problems else []
    if spare and (complete or compiled.request.graphs):
        shown = ", ".join(spare[:8]) + (f" and {len(spare) - 8} more" if len(spare) > 8 else "")
        problems.error(
            "unused-weights", f"no stage uses {len(spare)} tensor{'s' if len(spare) > 1 else ''} of the weights: {shown}",
            spec.weights.span if spec.weights else spec.root.span,
            "if that is meant, list patterns under `weights: {allow_unused: [...]}`", kind=WeightsError,
        )  # fmt: skip


def metadata(compiled: Compiled, phase: Phase) -> dict[str, str]:
    """What every graph file says about itself (`metadata_props`)."""
    from flowc.lowering.targets import target

    spec, request = compiled.spec, compiled.request
    facts = {
        "flowc.version": __version__,
        "flowc.spec_sha256": spec.sha256(),
        "flowc.target": request.target,
        "flowc.graph": phase,
        "flowc.assume": request.options.assume,
        "flowc.min_onnxruntime": target(request.target).min_onnxruntime,
    }
    vocab = compiled.graphs[phase].facts.get("vocab_size") or spec.symbol("vocab")
    eos = spec.symbol("eos")
    for key, value in (
        ("vocab_size", vocab),
        ("context_length", compiled.context_length),
        ("eos_token_id", ",".join(map(str, eos)) if isinstance(eos, list) else eos),  # pyright: ignore[reportUnknownArgumentType]
    ):
        if value is not None:
            facts[key] = str(value)
    return facts
