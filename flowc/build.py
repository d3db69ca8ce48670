"""From compiled graphs to finished files: lowered, written as a stream, checked, and only then named."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Generator, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from flowc import __version__
from flowc.compile import Compiled, metadata
from flowc.errors import CheckFailed, FlowError, InternalError, MissingTool, SpecError, cannot_write
from flowc.in_place import locator, records_of
from flowc.ir.weight import Weight
from flowc.lock import hold_to
from flowc.lowering.data import Layout, plan, write
from flowc.lowering.targets import target
from flowc.sources import Sources
from flowc.spec import PHASES, Phase
from flowc.weights import Checkpoint, find_tokenizer_files
from flowc.weights.gguf import GgufCheckpoint

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
    """What the model is without."""


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
    _spare([compiled.spec.path, *checkpoint.files()], [folder / name for name in names])
    weights = (w for graph in compiled.graphs.values() for w in graph.weights())
    layout = plan(weights, data_name, locator(checkpoint, folder) if in_place else None)
    with _workshop(folder, layout.size) as work:
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
            for f in _copy_tokenizer(checkpoint, work, notes)
        ]
        notes += _replaced_tokenizers(folder, manifest_name, manifest["tokenizer"])
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
        _publish(built, work, out, _tokenizer_sources(checkpoint))
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


@contextlib.contextmanager
def _workshop(folder: Path, needed: int) -> Generator[Path]:
    """A folder for unfinished files, on the same file system; gone afterwards, whatever happens.

    `needed` bytes must be free there. What cannot be written raises what `cannot_write` gives.
    """
    created = [p for p in (folder, *folder.parents) if not os.path.exists(p)]  # unlike Path.exists, it never raises
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < needed:
            message = f"the build needs {needed:,} bytes in {folder}, where {free:,} are free"
            raise MissingTool.of("cannot-write", message)
        work = Path(tempfile.mkdtemp(prefix=".flowc-", dir=folder))
        try:
            yield work
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except BaseException as error:
        for made in created:
            with contextlib.suppress(OSError):
                made.rmdir()
        if isinstance(error, OSError):
            raise cannot_write(folder, error) from None
        raise


def _publish(built: Built, work: Path, out: Path, sources: Iterable[Path]) -> None:
    """Give every file its final name, in an order that leaves no graph beside another build's data, wherever it ends.

    Graphs of earlier builds go first, those of this one come after their data, and the manifest comes last. A file that
    is one of `sources` stays what it is.
    """
    folder, graphs = built.folder, {graph_file(out, phase) for phase in PHASES}
    new = [p for p in work.iterdir() if not p.is_symlink() and not any(_same(folder / p.name, s) for s in sources)]
    names = sorted((p.name for p in new), key=lambda n: (n.endswith(".flowc.json"), n in graphs, n))
    for name in names:
        if (folder / name).is_dir():
            raise SpecError.of("bad-output", f"cannot write {folder / name}: it is a folder")
    umask = os.umask(0)
    os.umask(umask)
    with _alone_in(folder):
        # Until the new manifest is there, the folder has none: a set cut short by a kill is not taken for a model.
        (folder / names[-1]).unlink(missing_ok=True)
        for name in sorted(graphs):
            if name in names:
                (folder / name).unlink(missing_ok=True)
            elif f"{out.name}.data" in names and _reads(folder / name, f"{out.name}.data"):
                (folder / name).unlink()
                built.removed.append(folder / name)
        for name in names:
            os.chmod(work / name, 0o666 & ~umask)
            os.replace(work / name, folder / name)
    built.files = [folder / name for name in sorted(names, key=lambda n: (n == names[-1], n))]


def _reads(graph: Path, data: str) -> bool:
    """Whether a file is a graph that flowc made and that has its weights in a data file of this name."""
    if not graph.is_file():
        return False
    content = graph.read_bytes()
    return b"flowc.graph" in content and data.encode() in content


def _spare(sources: Iterable[Path], outputs: Iterable[Path]) -> None:
    """Refuse to write over what the build reads."""
    for output, source in itertools.product(outputs, sources):
        if _same(output, source):
            raise SpecError.of("bad-output", f"cannot write {output}: the build reads it")


def _same(output: Path, source: Path) -> bool:
    try:
        return output.samefile(source)
    except OSError:  # one of them is not there
        return False


@contextlib.contextmanager
def _alone_in(folder: Path) -> Generator[None]:
    """Two builds into one folder name their files one after the other, so that the set is one build's."""
    try:
        import fcntl
    except ImportError:  # not on this system: the last one to rename wins, file by file
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


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


def _copy_tokenizer(checkpoint: Checkpoint, work: Path, notes: list[str]) -> list[Path]:
    """Bring the tokenizer along: a GGUF's own, or what lies beside the weights where flowc converts none."""
    sources = _tokenizer_sources(checkpoint)
    if isinstance(checkpoint, GgufCheckpoint) and "tokenizer.ggml.model" in checkpoint.metadata:
        from flowc.weights.gguf_tokenizer import write_tokenizer

        try:
            return sorted(write_tokenizer(checkpoint, work))
        except FlowError as error:
            first = error.diagnostics[0]
            if first.code != "unsupported-tokenizer":
                raise
            if not sources:
                notes.append(f"no tokenizer comes along: {first.message}; {first.hint}")
    return [Path(shutil.copyfile(f, work / f.name)) for f in sources]


def _replaced_tokenizers(folder: Path, manifest_name: str, records: list[dict[str, str]]) -> list[str]:
    """What becomes of the folder's other models, whose tokenizer files have the same names."""
    ours = {record["file"]: record["sha256"] for record in records}
    notes: list[str] = []
    for path in sorted(folder.glob("*.flowc.json")) if ours else []:
        try:
            theirs = [(record["file"], record["sha256"]) for record in json.loads(path.read_bytes())["tokenizer"]]
        except (OSError, ValueError, LookupError, TypeError):
            continue
        lost = [name for name, digest in theirs if ours.get(name, digest) != digest]
        if path.name != manifest_name and lost:
            other = path.name.removesuffix(".flowc.json")
            notes.append(f"{', '.join(lost)} replaced the files of '{other}', which needs a folder of its own now")
    return notes


def _tokenizer_sources(checkpoint: Checkpoint) -> list[Path]:
    """The tokenizer's files that lie beside the weights; beside a GGUF they count only with a `tokenizer.json`."""
    files = checkpoint.files()
    found = find_tokenizer_files(files[0]) if files else []
    if isinstance(checkpoint, GgufCheckpoint) and all(f.name != "tokenizer.json" for f in found):
        return []
    return found
