"""From compiled graphs to finished files: lowered, written as a stream, checked, and only then named."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from flowc import __version__
from flowc.bring_tokenizer import copy_tokenizer, replaced_tokenizers, tokenizer_sources
from flowc.compile import Compiled, metadata
from flowc.errors import CheckFailed, InternalError, SpecError
from flowc.in_place import locator, records_of
from flowc.ir.weight import Weight
from flowc.lock import hold_to
from flowc.lowering.data import Layout, plan, write
from flowc.lowering.targets import target
from flowc.publish import publish, spare, workshop
from flowc.sources import Sources
from flowc.spec import PHASES, Phase

Progress = Callable[[int, int], None]
"""Bytes written, bytes in all."""


@dataclass(slots=True)
class Built:
    """What a build wrote."""

    folder: Path
    manifest: dict[str, Any]
    files: list[Path] = field(default_factory=list[Path])
    removed: list[Path] = field(default_factory=list[Path])
    """Graphs of earlier builds whose data file this one replaced."""
    checks: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    notes: list[str] = field(default_factory=list[str])
    """What the build wants to be known: a tokenizer left out, or one of another model replaced."""


def graph_file(out: Path, phase: str) -> str:
    """Name of a phase's file beside `-o out/model.onnx`."""
    stem = out.name.removesuffix(".onnx")
    return f"{stem}.onnx" if phase in ("unified", "encode") else f"{stem}.{phase}.onnx"


def build(
    compiled: Compiled,
    out: Path,
    *,
    in_place: bool = False,
    check: Callable[[Path, Compiled], list[dict[str, Any]]] | None = None,
    verify: str = "quick",
    progress: Progress | None = None,
    lock: Mapping[str, Any] | None = None,
) -> Built:
    """Write all files of a build beside `out`.

    Everything is made in a folder of its own inside the output folder, handed to `check`, and then renamed; a build
    that fails leaves nothing behind. With a `lock`, the manifest of an earlier build, any difference is refused.
    """
    if out.suffix != ".onnx":
        raise SpecError.of("bad-output", f"the output must be named *.onnx, not '{out.name}'")
    if compiled.checkpoint is None:
        raise InternalError("a build needs a checkpoint")
    checkpoint, folder = compiled.checkpoint, out.absolute().parent
    data_name = f"{out.name}.data"
    manifest_name = f"{out.name.removesuffix('.onnx')}.flowc.json"
    names = [data_name, manifest_name, *(graph_file(out, phase) for phase in compiled.graphs)]
    spare([compiled.spec.path, *checkpoint.files()], [folder / name for name in names])
    weights = (w for graph in compiled.graphs.values() for w in graph.weights())
    layout = plan(weights, data_name, locator(checkpoint, folder) if in_place else None)
    with workshop(folder, layout.size) as work:
        manifest = _manifest(compiled, out, verify)
        if lock is not None:
            hold_to(lock, manifest, whole=False)
        with _writing(Sources(checkpoint, compiled.names), layout, work / data_name, progress) as digest:
            # While the data streams to its file, the graphs are emitted: neither waits for the other.
            for phase, content in _emit(compiled, layout).items():
                name = graph_file(out, phase)
                (work / name).write_bytes(content)
                manifest["graphs"][phase] = {"file": name, "sha256": hashlib.sha256(content).hexdigest()}
        if layout.stored:
            manifest["data"] = {"file": data_name, "sha256": digest.result(), "bytes": layout.size}
        if in_place:
            manifest["in_place"] = records_of(checkpoint)
        notes: list[str] = []
        manifest["tokenizer"] = [
            {"file": f.name, "sha256": hashlib.sha256(f.read_bytes()).hexdigest()}
            for f in copy_tokenizer(checkpoint, work, notes)
        ]
        notes += replaced_tokenizers(folder, manifest_name, manifest["tokenizer"])
        if lock is not None:
            hold_to(lock, manifest, whole=True)
        manifest_path = work / manifest_name
        built = Built(folder, manifest, notes=notes)

        def write_manifest() -> None:
            manifest_path.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

        write_manifest()
        if check is not None and not in_place:
            built.checks = check(manifest_path, compiled)
            manifest["checks"] = list(dict.fromkeys(c["name"] for c in built.checks))
            write_manifest()
        graphs = {graph_file(out, phase) for phase in PHASES}
        built.files, built.removed = publish(work, folder, graphs, data_name, tokenizer_sources(checkpoint))
    if check is not None and in_place:
        # Graphs that read the checkpoint where it lies can only be loaded beside it.
        try:
            built.checks = check(folder / manifest_path.name, compiled)
        except BaseException as error:
            for file in built.files:
                file.unlink(missing_ok=True)
            if isinstance(error, CheckFailed):  # such weights are not looked through before they are in doubt
                Sources(checkpoint, compiled.names).check_all()
            raise
    return built


def _emit(compiled: Compiled, layout: Layout) -> dict[Phase, bytes]:
    """The graph files' contents."""
    from flowc.lowering.lower import lower

    contents: dict[Phase, bytes] = {}
    for phase, graph in compiled.graphs.items():
        lowered = lower(graph, target(compiled.request.target), metadata(compiled, phase))
        lowered.place(layout)
        contents[phase] = lowered.serialize()
    return contents


@contextlib.contextmanager
def _writing(sources: Sources, layout: Layout, path: Path, progress: Progress | None) -> Generator[Future[str]]:
    """Streams the data file on a thread of its own; the future gives its sha256. Leaving early stops the stream."""
    stop = threading.Event()

    def check(array: Any, weight: Weight) -> None:
        if stop.is_set():
            raise InternalError("the build was stopped")
        sources.check(array, weight)

    def report(done: int) -> None:
        if progress is not None:
            progress(done, layout.size)

    with ThreadPoolExecutor(max_workers=1) as pool:
        future = pool.submit(write, layout, path, sources.read, check, report) if layout.stored else Future[str]()
        try:
            yield future
            if layout.stored:
                future.result()
        except BaseException:
            stop.set()
            raise


def facts_of(compiled: Compiled) -> dict[str, Any]:
    """What the manifest says of a model, for those who run it."""
    spec = compiled.spec
    eos = spec.symbol("eos")
    return {
        "name": spec.name,
        "kind": "encoder" if "encode" in compiled.graphs else "decoder",
        "model": {
            "vocab": spec.integer("vocab"),
            "context_length": compiled.context_length,
            "eos": cast("list[int]", eos) if isinstance(eos, list) else ([] if eos is None else [eos]),
            "bos": spec.symbol("bos"),
        },
    }


def _manifest(compiled: Compiled, out: Path, verify: str) -> dict[str, Any]:
    request, spec, facts = compiled.request, compiled.spec, facts_of(compiled)
    return {
        "flowc": __version__,
        "name": facts["name"],
        "kind": facts["kind"],
        "target": request.target,
        "assume": None if request.options.assume == "none" else request.options.assume,
        "logits": request.options.logits,
        "context": request.options.context,
        "skip_passes": list(request.skip_passes),
        "passes": sorted({name for audits in compiled.audits.values() for name in audits}),
        "verify": verify,
        "spec_sha256": spec.sha256(),
        "spec": spec.resolved(),
        "versions": {name: version(name) for name in ("numpy", "onnx", "onnx-ir")},
        "min_onnxruntime": target(request.target).min_onnxruntime,
        "tensors": {name: "x".join(map(str, shape)) for name, (shape, _) in compiled.names.used.items()},
        "model": facts["model"],
        "graphs": {},
    }
