"""The tokenizer that comes along with a build's weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from flowc.errors import FlowError
from flowc.weights import Checkpoint, find_tokenizer_files
from flowc.weights.gguf import GgufCheckpoint


def copy_tokenizer(checkpoint: Checkpoint, work: Path, notes: list[str]) -> list[Path]:
    """Bring the tokenizer along: a GGUF's own, or what lies beside the weights where flowc converts none."""
    sources = tokenizer_sources(checkpoint)
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


def replaced_tokenizers(folder: Path, manifest_name: str, records: list[dict[str, str]]) -> list[str]:
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


def tokenizer_sources(checkpoint: Checkpoint) -> list[Path]:
    """The tokenizer's files that lie beside the weights; beside a GGUF they count only with a `tokenizer.json`."""
    files = checkpoint.files()
    found = find_tokenizer_files(files[0]) if files else []
    if isinstance(checkpoint, GgufCheckpoint) and all(f.name != "tokenizer.json" for f in found):
        return []
    return found
