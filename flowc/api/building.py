"""`flowc.build`: from a spec and its weights to ONNX files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

from flowc.api.checking import ports
from flowc.api.specs import AnyPath, Form, SpecLike, compiled, request_of

if TYPE_CHECKING:
    from flowc.build.compiled import Compiled
    from flowc.compile import Watch

Progress = Callable[[str, int, int], None]
"""What is being done, how much of it was, and how much there is: bytes while weights are written, then steps."""

WRITING = "writing"
"""What `Progress` calls the writing of weights, whose numbers are bytes."""


@dataclass(frozen=True, slots=True)
class Built:
    """What a build wrote."""

    files: tuple[Path, ...]
    """All files of the model, the manifest last."""
    sizes: dict[str, int]
    """Bytes of each file, by name."""
    graphs: dict[str, dict[str, Any]]
    """By phase: `file`, `sha256`, `inputs`, `outputs` and, of a decoder, the form of its `cache`."""
    checks: list[dict[str, Any]]
    """What was checked, each check as `flowc build --json` shows it."""
    verify: str
    notes: tuple[str, ...]
    """What a person should know: a form of cache that was not to be had, a tokenizer that was left out."""
    removed: tuple[Path, ...]
    """Files of earlier builds under this name that do not belong to this one."""
    manifest: Mapping[str, Any]
    up_to_date: bool = False
    """Whether the files were there already, made of the same spec, options, weights and flowc: nothing was written."""


def build(
    spec: SpecLike,
    output: AnyPath,
    *,
    verify: Literal["quick", "full", "off"] = "quick",
    in_place: bool = False,
    shard_bytes: int | None = None,
    locked: AnyPath | None = None,
    force: bool = False,
    progress: Progress | None = None,
    watch: Watch | None = None,
    **form: Unpack[Form],
) -> Built:
    """Compile a spec and its weights, check the result, and write it. A build that fails leaves no file behind.

    Where the files are there already, made of the same inputs, nothing is written (`Built.up_to_date`).

    Args:
        spec: a file, values in memory, or a loaded spec.
        output: `FOLDER/NAME.onnx`; all files lie beside it.
        verify: the checks before the files get their names, as `flowc build --verify`.
        in_place: use safetensors in the output folder where they lie.
        shard_bytes: size of a data file above which weights go into another one.
        locked: a lock (`flowc lock`), or the manifest of an earlier build: any difference is refused.
        force: build, though nothing has changed.
        progress: is told how far the build is.
        watch: sees each graph after expansion and after each pass that changed it.
        form: see `Form`.

    Raises:
        SpecError: the spec or an option is wrong.
        WeightsError: the weights are missing, damaged or do not fit.
        CheckFailed: the built model is not what its spec means, or not what is locked.
        MissingTool: something is missing on this machine: memory, room on the disk, a library.
    """
    request = replace(request_of(**form), in_place=in_place, shard_bytes=shard_bytes)
    model, path = compiled(spec, request, watch), Path(output)
    there = None if force else up_to_date(model, path, verify=verify, locked=locked)
    return there or write(model, path, verify=verify, locked=locked, progress=progress)


def up_to_date(model: Compiled, output: Path, *, verify: str, locked: AnyPath | None = None) -> Built | None:
    """What is there already, if building a compiled spec would write the same; else None."""
    from flowc.build.lock import check_lock, read_lock
    from flowc.build.unchanged import unchanged, written

    there = unchanged(model, output, verify)
    if there is None:
        return None
    if locked is not None:
        check_lock(read_lock(Path(locked)), there.raw, whole=True)
    files = written(model, there)
    sizes = {file.name: file.stat().st_size for file in files}
    return _built(model, output, files, sizes, there.raw, verify=verify, same=True)


def write(
    model: Compiled,
    output: Path,
    *,
    verify: Literal["quick", "full", "off"],
    locked: AnyPath | None = None,
    progress: Progress | None = None,
) -> Built:
    """Write all files of a compiled spec."""
    from flowc.build.lock import read_lock
    from flowc.build.unchanged import note, see
    from flowc.compile import build as write_files

    lock = read_lock(Path(locked)) if locked is not None else None
    before = see(model)
    told = None if progress is None else partial(progress, WRITING)
    found = write_files(model, output, check=_check(verify, progress), verify=verify, progress=told, lock=lock)
    note(model, output, before)
    return _built(model, output, found.files, found.sizes, found.manifest, verify=verify, checks=found.checks,
                  notes=tuple(found.notes), removed=tuple(output.parent / f.name for f in found.removed))  # fmt: skip


def _built(
    model: Compiled, output: Path, files: Sequence[Path], sizes: dict[str, int], manifest: Mapping[str, Any], *,
    verify: str, checks: Sequence[dict[str, Any]] = (), notes: tuple[str, ...] = (), removed: tuple[Path, ...] = (),
    same: bool = False,
) -> Built:  # fmt: skip
    graphs = {phase: {**manifest["graphs"][phase], **ports(graph)} for phase, graph in model.graphs.items()}
    named = tuple(output.parent / file.name for file in files)
    return Built(named, sizes, graphs, list(checks), verify, notes, removed, manifest, same)


def _check(verify: str, progress: Progress | None) -> Callable[[Path, Compiled], list[dict[str, Any]]] | None:
    if verify == "off":
        return None
    if verify == "full":
        from flowc.verify.full import check
    else:
        from flowc.verify.quick import check
    return partial(check, progress=progress)
