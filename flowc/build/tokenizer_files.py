"""The tokenizer that comes along with a build's weights."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from flowc.build.remembered import sha256_of
from flowc.errors import FlowError
from flowc.outside.reading import read_json
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


def replaced_tokenizers(folder: Path, manifest_name: str, records: list[dict[str, str]]) -> list[str]:
    """What becomes of the folder's other models, whose tokenizer files have the same names."""
    ours = {record["file"]: record["sha256"] for record in records}
    notes: list[str] = []
    for path in sorted(folder.glob("*.flowc.json")) if ours else []:
        try:
            theirs = [(record["file"], record["sha256"]) for record in read_json(path)["tokenizer"]]
        except (OSError, ValueError, LookupError, TypeError):
            continue
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
