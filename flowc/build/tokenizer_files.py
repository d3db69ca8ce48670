"""The tokenizer that comes along with a build's weights."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from flowc.build.remembered import sha256_of
from flowc.errors import FlowError, SpecError
from flowc.outside.reading import read_json
from flowc.outside.writing import same
from flowc.weights import Checkpoint, find_tokenizer_files

if TYPE_CHECKING:
    from flowc.weights.gguf.checkpoint import GgufCheckpoint


def copy_tokenizer(checkpoint: Checkpoint, work: Path, notes: list[str]) -> list[dict[str, str]]:
    """Bring the tokenizer along: a GGUF's own, or what lies beside the weights where flowc converts none.

    Returns name and sha256 of each file, as the manifest records them.
    """
    files = _copied(checkpoint, work, notes)
    return [{"file": f.name, "sha256": sha256_of(f)} for f in files]


def _copied(checkpoint: Checkpoint, work: Path, notes: list[str]) -> list[Path]:
    sources = tokenizer_sources(checkpoint)
    gguf = _as_gguf(checkpoint)
    if gguf is not None and "tokenizer.ggml.model" in gguf.metadata:
        from flowc.weights.gguf.tokenizer import write_tokenizer

        try:
            return sorted(write_tokenizer(gguf, work))
        except FlowError as error:
            first = error.diagnostics[0]
            if first.code != "unsupported-tokenizer":
                raise
            if not sources:
                notes.append(f"no tokenizer comes along: {first.message}; {first.hint}")
    return [Path(shutil.copyfile(f, work / f.name)) for f in sources]


def refuse_foreign(folder: Path, records: list[dict[str, str]], sources: Collection[Path]) -> None:
    """Refuse to replace a tokenizer's file that lies in the folder and that no build put there.

    A file of the same bytes may have been left by a build that was killed. Raises SpecError `bad-output`.
    """
    known = {name for theirs in _recorded(folder).values() for name, _ in theirs}
    for record in records:
        path = folder / record["file"]
        if record["file"] in known or not path.is_file() or any(same(path, source) for source in sources):
            continue
        if sha256_of(path) != record["sha256"]:
            raise SpecError.of(
                "bad-output", f"cannot write {path}: it belongs to another model, and no build put it there",
                hint="choose a folder of its own for the build",
            )  # fmt: skip


def _recorded(folder: Path) -> dict[Path, list[tuple[str, str]]]:
    """Names and hashes of the tokenizer files that the folder's manifests list, by manifest."""
    found: dict[Path, list[tuple[str, str]]] = {}
    for path in sorted(folder.glob("*.flowc.json")):
        try:
            found[path] = [(record["file"], record["sha256"]) for record in read_json(path)["tokenizer"]]
        except (OSError, ValueError, LookupError, TypeError):
            continue
    return found


def replaced_tokenizers(folder: Path, manifest_name: str, records: list[dict[str, str]]) -> list[str]:
    """What becomes of the folder's other models, whose tokenizer files have the same names."""
    ours = {record["file"]: record["sha256"] for record in records}
    notes: list[str] = []
    for path, theirs in _recorded(folder).items() if ours else ():
        lost = [name for name, digest in theirs if ours.get(name, digest) != digest]
        if path.name != manifest_name and lost:
            other = path.name.removesuffix(".flowc.json")
            notes.append(f"{', '.join(lost)} replaced the files of '{other}', which needs a folder of its own now")
    return notes


def tokenizer_sources(checkpoint: Checkpoint) -> list[Path]:
    """The tokenizer's files that lie beside the weights; beside a GGUF they count only with a `tokenizer.json`."""
    files = checkpoint.files()
    found = find_tokenizer_files(files[0]) if files else []
    if _as_gguf(checkpoint) is not None and all(f.name != "tokenizer.json" for f in found):
        return []
    return found


def _as_gguf(checkpoint: Checkpoint) -> GgufCheckpoint | None:
    """The checkpoint if it is a GGUF file; its reader is imported only where one was opened."""
    if not any(file.suffix == ".gguf" for file in checkpoint.files()):
        return None
    from flowc.weights.gguf.checkpoint import GgufCheckpoint

    return checkpoint if isinstance(checkpoint, GgufCheckpoint) else None
