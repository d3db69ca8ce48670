"""The path of a build on one screen: spec, weights, stages, graphs, passes, lowering, files, check, publish."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowc.build.cache import cache_form, cache_notes, check_cache
from flowc.build.compiled import Compiled, Request
from flowc.errors import CheckFailed, Diagnostics, FlowError
from flowc.frontend.phases import check_connected, expand, steps
from flowc.frontend.usage import Usage, account
from flowc.ir.graph import Graph
from flowc.ir.verify import verify
from flowc.passes.assign_precision import assign_precision, check_islands
from flowc.passes.audit import Audit
from flowc.passes.expectations import check_expectations
from flowc.passes.pipeline import run
from flowc.spec.components import refuse_components
from flowc.spec.load import load
from flowc.spec.spec import Spec
from flowc.spec.weights import open_weights
from flowc.stages import load_all
from flowc.targets.registry import target
from flowc.weights.random import RandomCheckpoint

if TYPE_CHECKING:
    from flowc.build.files import Built
    from flowc.build.stream import Progress
    from flowc.build.weight_reader import WeightReader

__all__ = ["Compiled", "Request", "build", "compile_file", "compile_spec"]

Watch = Callable[[str, str, Graph], None]
"""Sees a phase's graph: after expansion ('expand') and after each pass that changed it."""

Check = Callable[[Path, Compiled], list[dict[str, Any]]]
"""Checks the build that a manifest names; returns what was checked, raises CheckFailed."""


def compile_file(path: Path, request: Request, watch: Watch | None = None, *, need_weights: bool = True) -> Compiled:
    """Read a spec and compile it. Raises FlowError with all that is wrong with the file, the spec and the weights."""
    problems = Diagnostics()
    return compile_spec(load(path, problems), request, watch, need_weights=need_weights, problems=problems)


def compile_spec(
    spec: Spec,
    request: Request,
    watch: Watch | None = None,
    *,
    need_weights: bool = True,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
    problems: Diagnostics | None = None,
) -> Compiled:
    """Everything before lowering. Raises FlowError with all that is wrong with spec and weights.

    Without `need_weights` a missing weights file is no error: tensors are then those of `shapes`, or, without them
    too, believed to be as declared. `problems` holds what is known to be wrong with the spec already.
    """
    load_all()
    problems = problems if problems is not None else Diagnostics()
    wanted = steps(spec, request.graphs)
    aim = target(request.target)  # an unknown one is told before all else
    aim.check_dtype(request.dtype)
    check_cache(aim, request.options, request.dtype)
    options, several = request.options, bool(spec.main.name)
    refuse_components(spec.name, several and options.assume != "none", "yet assume anything (--assume) of")
    refuse_components(spec.name, several and options.cache not in (None, "aligned"), "yet make other caches for")
    checkpoint, usage = None, Usage(shapes)
    try:
        checkpoint = open_weights(spec, request.weights, need=need_weights)
    except FlowError as error:
        problems.include(error)
        usage.unreadable = True
    if checkpoint is not None:
        random = isinstance(checkpoint, RandomCheckpoint)
        usage.shapes = None if random else {n: t.shape for n, t in checkpoint.tensors().items()}
    compiled = Compiled(request, spec, checkpoint, usage)
    flows: dict[str, Graph] = {}
    before: dict[str, Graph] = {}
    for step in wanted:
        graph = expand(spec, step.phase, usage, request.options, problems, step.component, before)
        if graph is None:
            continue
        verify(graph, "core", "expand")
        if not graph.main:
            before[graph.component] = graph
        if step.asked:
            flows[graph.name] = graph
            compiled.expanded[graph.name] = assign_precision(graph, compiled.pass_context, Audit())
            if watch is not None:
                watch(graph.name, "expand", graph)
    check_islands(request.islands, flows.values(), problems)
    if request.options.assume == "no-padding":
        usage.port("", "attention_mask")  # declared for the other forms; this one has none
    whole = any(step.component.main for step in wanted)
    if not problems and whole:
        check_connected(spec, list({**before, **flows}.values()), problems)
    # A graph that was not asked for may use more of a spec that spells its phases out.
    if not problems and whole and (not request.graphs or "*" in spec.main.flows):
        account(spec, usage, problems)
    problems.raise_if_any()
    if isinstance(checkpoint, RandomCheckpoint):
        for name, used in usage.tensors.items():
            checkpoint.declare(name, used.shape)
    for phase, graph in flows.items():
        seen = partial(watch, phase) if watch is not None else None
        compiled.graphs[phase], compiled.audits[phase] = run(graph, compiled.pass_context, request.skip_passes, seen)
    check_expectations(spec.expect, compiled.audits)
    return compiled


def build(
    compiled: Compiled,
    out: Path,
    *,
    check: Check | None = None,
    verify: str = "quick",
    progress: Progress | None = None,
    lock: Mapping[str, Any] | None = None,
) -> Built:
    """Write all files of a build beside `out`.

    Everything is made in a folder of its own inside the output folder, handed to `check`, and then renamed; a build
    that fails leaves nothing behind. With a `lock`, the manifest of an earlier build, any difference is refused.
    """
    # What writes no files waits for none of this, least of all for onnx_ir behind `lower`.
    import hashlib

    from flowc.build.data import plan
    from flowc.build.facts import manifest_facts, metadata
    from flowc.build.files import Built, Outputs
    from flowc.build.in_place import locator, records_of
    from flowc.build.lock import check_lock
    from flowc.build.manifest import write_manifest
    from flowc.build.publish import publish, staging_folder
    from flowc.build.remembered import remember
    from flowc.build.stream import streaming
    from flowc.build.tokenizer_files import refuse_foreign, replaced_tokenizers
    from flowc.build.weight_reader import WeightReader
    from flowc.lowering.lower import lower
    from flowc.outside.writing import refuse_overwrite, spelled

    outputs, checkpoint, in_place = Outputs(out), compiled.need_checkpoint(), compiled.request.in_place
    folder, reader = outputs.folder, WeightReader(checkpoint, compiled.usage)
    found = locator(checkpoint, folder, compiled.request.dtype) if in_place else None
    layout = plan(compiled.weights, outputs.data, found, shard_bytes=compiled.request.shard_bytes)
    written = [*(data.name for data in layout.files), outputs.manifest, *outputs.graphs(compiled.graphs)]
    spelled(folder / outputs.manifest)
    refuse_overwrite([compiled.spec.path, *checkpoint.files()], [folder / name for name in written])
    with staging_folder(folder, layout.size) as work:
        manifest = manifest_facts(compiled, verify)
        if lock is not None:
            check_lock(lock, manifest, whole=False)
        tokenizer = compiled.tokenizer.write(work, folder, outputs.stem)
        refuse_foreign(folder, tokenizer, compiled.tokenizer.sources)
        with streaming(reader, layout, work, progress) as digests:
            # While the data streams to its file, the graphs are emitted: neither waits for the other.
            for phase, graph in compiled.graphs.items():
                content = lower(graph, compiled.target, metadata(compiled, phase)).serialize(layout.places)
                (work / outputs.graph(phase)).write_bytes(content)
                record = {"file": outputs.graph(phase), "sha256": hashlib.sha256(content).hexdigest()}
                form = cache_form(graph)
                manifest["graphs"][phase] = record if form is None else {**record, "cache": form}
        sha256 = digests.result()
        manifest["data"] = [{"file": d.name, "sha256": sha256[d.name], "bytes": d.size} for d in layout.files]
        if in_place:
            manifest["in_place"] = records_of(checkpoint)
        manifest["tokenizer"] = tokenizer
        notes = [*cache_notes(compiled), *compiled.tokenizer.notes]
        notes += replaced_tokenizers(folder, outputs.manifest, manifest["tokenizer"])
        if lock is not None:
            check_lock(lock, manifest, whole=True)
        built = Built(folder, manifest, notes=notes)
        write_manifest(work / outputs.manifest, manifest)
        if check is not None and not in_place:
            built.checks = check(work / outputs.manifest, compiled)
            manifest["checks"] = list(dict.fromkeys(c["name"] for c in built.checks))
            write_manifest(work / outputs.manifest, manifest)
        built.sizes = {file.name: file.stat().st_size for file in work.iterdir()}
        built.files, built.removed = publish(work, outputs, compiled.tokenizer.sources)
    for data in layout.files:
        remember(folder / data.name, sha256[data.name])
    if check is not None and in_place:
        _check_in_place(built, folder / outputs.manifest, compiled, check, reader)
    return built


def _check_in_place(built: Built, manifest: Path, compiled: Compiled, check: Check, reader: WeightReader) -> None:
    """Check graphs that read the checkpoint where it lies: they can only be loaded beside it, so after publishing."""
    try:
        built.checks = check(manifest, compiled)
    except BaseException as error:
        for file in built.files:
            file.unlink(missing_ok=True)
        if isinstance(error, CheckFailed):  # such weights are not looked through before they are in doubt
            reader.check_all()
        raise
