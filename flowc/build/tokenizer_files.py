"""The tokenizer that comes along with a build's weights, and what else decides a prompt and its end."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from flowc.build.remembered import sha256_of
from flowc.errors import FlowError, SpecError
from flowc.outside import reading
from flowc.outside.writing import same
from flowc.tokenizer.assemble import assemble, eos_of
from flowc.tokenizer.ends import generation_ends, gguf_ends, together
from flowc.tokenizer.reading import Json, read_json, write_json
from flowc.tokenizer.sentences import TextFacts, files_of, text_facts
from flowc.weights import Checkpoint, find_tokenizer_files

if TYPE_CHECKING:
    from flowc.weights.gguf.checkpoint import GgufCheckpoint

_GENERATION = "generation_config.json"


@dataclass(slots=True)
class TokenizerFiles:
    """What comes along: files as they lie beside the weights, files that flowc makes, and what they say."""

    sources: list[Path] = field(default_factory=list[Path])
    made: dict[str, bytes] = field(default_factory=dict[str, bytes])
    """By name; they count before a source of the same name."""
    ends: list[int] = field(default_factory=list[int])
    """Tokens that end a text, but for those that the spec names."""
    text: TextFacts | None = None
    notes: list[str] = field(default_factory=list[str])

    def write(self, work: Path, folder: Path, model: str) -> list[dict[str, str]]:
        """Write all files into a folder; name and sha256 of each, as the manifest records them.

        `folder` is where they go later: what flowc makes there beside a source of the same name is named after `model`.
        """
        names: list[str] = []
        for source in self.sources:
            if source.name not in self.made:
                shutil.copyfile(source, work / source.name)
                names.append(source.name)
        there = {source.name for source in self.sources if source.parent.resolve() == folder.resolve()}
        for name, content in self.made.items():
            name = f"{model}.{name}" if name in there else name
            (work / name).write_bytes(content)
            names.append(name)
        digests = {name: sha256_of(work / name) for name in names}
        return [{"file": name, "sha256": digest} for name, digest in digests.items()]


def tokenizer_files(checkpoint: Checkpoint | None) -> TokenizerFiles:
    """The tokenizer of a checkpoint: a GGUF's own, or what lies beside the weights. WeightsError for broken files."""
    files = checkpoint.files() if checkpoint is not None else ()
    if checkpoint is None or not files:
        return TokenizerFiles()
    found = find_tokenizer_files(files[0])
    gguf = _as_gguf(checkpoint)
    if gguf is not None:
        return _of_gguf(gguf, found)
    folder = files[0].parent
    return _of_folder(folder, [*found, *files_of(folder)])


def published_files(folder: Path, names: Iterable[str]) -> TokenizerFiles:
    """What the files of a build say, as far as its graphs depend on it; `names` as the manifest records them."""

    def find(name: str) -> Path | None:
        return next((folder / found for found in names if found == name or found.endswith(f".{name}")), None)

    named = eos_of(find("tokenizer.json"), find("tokenizer_config.json"))
    return TokenizerFiles(ends=_ends(find(_GENERATION), named))


def _ends(generation: Path | None, named: int | None) -> list[int]:
    """The end tokens of a generation_config.json, and the one that the tokenizer names."""
    return together(generation_ends(read_json(generation)), [] if named is None else [named])


def _of_folder(folder: Path, found: list[Path]) -> TokenizerFiles:
    made = assemble(folder)
    return TokenizerFiles(
        found,
        made.files,
        _ends(folder / _GENERATION, made.eos),
        text_facts(folder),
        [note for note in made.notes if note],
    )


def _of_gguf(gguf: GgufCheckpoint, found: list[Path]) -> TokenizerFiles:
    """A GGUF's own tokenizer; what lies beside it counts where flowc converts none and a `tokenizer.json` is there."""
    from flowc.weights.gguf.tokenizer import tokenizer_of

    beside = _of_folder(gguf.files()[0].parent, found) if any(f.name == "tokenizer.json" for f in found) else None
    made = beside or TokenizerFiles()
    if "tokenizer.ggml.model" in gguf.metadata:
        try:
            made = TokenizerFiles(made=tokenizer_of(gguf))
        except FlowError as error:
            first = error.diagnostics[0]
            if first.code != "unsupported-tokenizer":
                raise
            if beside is None:
                made.notes.append(f"no tokenizer comes along: {first.message}; {first.hint}")
    made.ends = together(made.ends, gguf_ends(gguf.metadata))
    if made.ends:
        # Where programs of HuggingFace's look for them; a GGUF has no such file of its own.
        said: Json = read_json(next((f for f in made.sources if f.name == _GENERATION), None))
        made.made[_GENERATION] = write_json({**said, "eos_token_id": made.ends})
    return made


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
            found[path] = [(record["file"], record["sha256"]) for record in reading.read_json(path)["tokenizer"]]
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


def _as_gguf(checkpoint: Checkpoint) -> GgufCheckpoint | None:
    """The checkpoint if it is a GGUF file; its reader is imported only where one was opened."""
    if not any(file.suffix == ".gguf" for file in checkpoint.files()):
        return None
    from flowc.weights.gguf.checkpoint import GgufCheckpoint

    return checkpoint if isinstance(checkpoint, GgufCheckpoint) else None
