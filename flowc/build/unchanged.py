"""Whether a build would write what is there already, so that nothing needs to be written.

A compilation tells all that a build is but for its weights' data: `unchanged` compiles nothing less than a build does,
and compares

    the manifest        with the one that the build would write: resolved spec, options, versions, verify, tokenizer
    every output        with its hash in the manifest; of data files the one that is remembered (`remembered.py`)
    flowc itself        every module's size and times, the versions of the libraries that it builds with
    the weights         with what they were when the build read them

Of weights a record is kept in the user's cache folder, `$FLOWC_CACHE/builds`, since their own hash would cost as much
as to write the data. A small file is known by its hash. A large one is known by device, inode, size, time of writing
and time of change (ctime, which the kernel moves at every write and no program sets: a file whose time of writing was
set back has another one); where these differ, as after a copy, by its hash if one is remembered. Without a record, or
in any doubt, the answer is no.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowc.build import manifest as manifests
from flowc.build.compiled import Compiled
from flowc.build.facts import manifest_facts
from flowc.build.files import Outputs
from flowc.build.in_place import records_of
from flowc.build.manifest import Manifest
from flowc.build.remembered import SETTLED, SMALL, cache_folder, remembered_sha256, sha256_of, status_of, told_sha256
from flowc.errors import FlowError
from flowc.outside.reading import Unreadable, read_json
from flowc.outside.writing import same, write_whole

MADE = ("graphs", "data", "checks")
"""What of a manifest is known only when the files are made; the outputs themselves are held to it."""

LIBRARIES = ("gguf", "jinja2", "ml_dtypes", "numpy", "onnx", "onnx-ir", "onnxruntime", "onnxscript", "tokenizers")
"""What decides the bytes of a build, or what its checks found, beside flowc."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was read of a build's surroundings before it read the data of its weights."""

    at: int
    """Nanoseconds since the epoch."""
    weights: tuple[tuple[tuple[int, ...], str | None], ...]
    """Of each file: its status, and its hash where that is cheap."""
    tensors: str
    """Digest of which tensor lies where in them."""
    code: str


def see(compiled: Compiled) -> Seen | None:
    """Look at weights and code before a build; None where a file cannot be looked at."""
    now = time.time_ns()
    checkpoint = compiled.need_checkpoint()
    try:
        files = tuple((status_of(file), told_sha256(file)) for file in checkpoint.files())
    except OSError:
        return None
    return Seen(now, files, _tensors(compiled), code_digest())


def note(compiled: Compiled, output: Path, before: Seen | None) -> None:
    """Remember what a finished build was made of; nothing, where that is in doubt."""
    outputs, after = Outputs(output), see(compiled)
    manifest = outputs.folder / outputs.manifest
    with contextlib.suppress(OSError, RuntimeError, FlowError):
        if before is None or after is None or not _sure(before, after):
            _place(manifest).unlink(missing_ok=True)
            return
        record = {
            "manifest": sha256_of(manifest), "code": before.code, "tensors": before.tensors, "weights": before.weights,
        }  # fmt: skip
        write_whole(_place(manifest), json.dumps(record) + "\n")


def _sure(before: Seen, after: Seen) -> bool:
    """Whether what was read in between is what was seen: a write within the clock's tick would leave the same times."""
    settled = all(digest is not None or before.at - status[-1] > SETTLED for status, digest in before.weights)
    return settled and (before.weights, before.code) == (after.weights, after.code)


def unchanged(compiled: Compiled, output: Path, verify: str) -> Manifest | None:
    """The manifest of a build that is there, if this one would write the same; else None."""
    outputs = Outputs(output)
    path = outputs.folder / outputs.manifest
    try:
        record: Any = read_json(_place(path), 1 << 20)
        if record["manifest"] != sha256_of(path) or record["code"] != code_digest():
            return None
        found = manifests.load(path)
        if not _same_facts(compiled, outputs, found, verify):
            return None
        found.check_files()
        if record["tensors"] != _tensors(compiled) or not _same_weights(compiled, record["weights"]):
            return None
    except (OSError, Unreadable, RuntimeError, LookupError, TypeError, ValueError, FlowError):
        return None
    return found


def written(compiled: Compiled, found: Manifest) -> list[Path]:
    """The files that a build of this compilation wrote: all of the manifest's, but sources that lay there before."""
    records = [*found.graphs.values(), *found.data, *found.tokenizer]
    files = [found.folder / name for name in sorted({record.file for record in records})]
    sources = compiled.tokenizer.sources
    return [*(file for file in files if not any(same(file, source) for source in sources)), found.path]


def _same_facts(compiled: Compiled, outputs: Outputs, found: Manifest, verify: str) -> bool:
    """Whether the manifest says what the build would say."""
    wanted = manifest_facts(compiled, verify)
    with tempfile.TemporaryDirectory() as work:
        wanted["tokenizer"] = compiled.tokenizer.write(Path(work), outputs.folder, outputs.stem)
    if compiled.request.in_place:
        wanted["in_place"] = records_of(compiled.need_checkpoint())
    ours, theirs = ({k: v for k, v in m.items() if k not in MADE} for m in (wanted, found.raw))
    return json.loads(json.dumps(ours)) == theirs and set(found.graphs) == set(compiled.graphs)


def _same_weights(compiled: Compiled, recorded: list[list[Any]]) -> bool:
    files = compiled.need_checkpoint().files()
    return len(files) == len(recorded) and all(map(_same_file, files, recorded))


def _same_file(file: Path, recorded: list[Any]) -> bool:
    status, digest = recorded
    here = status_of(file)
    if here[2] != status[2]:
        return False
    if here[2] > SMALL and list(here) == status:
        return True
    return digest is not None and remembered_sha256(file) == digest


def _tensors(compiled: Compiled) -> str:
    """Which of the tensors that the graphs use lies where."""
    infos = compiled.need_checkpoint().tensors()
    used = [infos[name] for name in sorted(compiled.usage.tensors) if name in infos]
    lies = [(i.name, i.shape, i.storage, str(i.path and i.path.name), i.offset, i.nbytes) for i in used]
    return hashlib.sha256(repr(lies).encode()).hexdigest()


def code_digest() -> str:
    """Digest of what builds: flowc's own modules by size and times, and the versions beside it."""
    found: list[object] = [sys.version]
    root = Path(__file__).parent.parent
    for folder, below, names in os.walk(root, followlinks=True):
        below[:] = sorted(name for name in below if name != "__pycache__")
        for name in sorted(names):
            status = os.stat(os.path.join(folder, name))
            found.append((folder, name, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
    for name in LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append((name, importlib.metadata.version(name)))
    return hashlib.sha256(repr(found).encode()).hexdigest()


def _place(manifest: Path) -> Path:
    digest = hashlib.sha256(os.fsencode(manifest.absolute())).hexdigest()
    return cache_folder() / "builds" / f"{digest[:32]}.json"
