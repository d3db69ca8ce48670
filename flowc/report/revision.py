"""A spec as a git revision has it: `HEAD~1:./model.yaml`, named as git names files of revisions."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import cast

from flowc.build.compiled import Compiled, Request
from flowc.compile import compile_spec
from flowc.errors import Diagnostics, SpecError
from flowc.outside.git import blob, top_folder
from flowc.spec.load import build
from flowc.text.limits import MAX_BYTES
from flowc.text.source import parse, plain


def is_revision(path: Path) -> bool:
    """Whether a path that nothing lies at is REVISION:PATH."""
    revision, colon, file = str(path).partition(":")
    return bool(revision and colon and file) and not os.path.lexists(path)


def compile_revision(name: str, request: Request) -> Compiled:
    """Compile a spec as a revision has it, with the files beside it that its stages read at that revision.

    Weights that the spec names are those of the working tree.

    Raises:
        SpecError: git knows no such revision or file; what is wrong with the spec.
        MissingTool: there is no git.
    """
    revision, _, file = name.partition(":")
    text = _decoded(name, blob(name, MAX_BYTES))
    root = parse(text, name, json=file.lower().endswith(".json"))
    folder = _working_folder(file)
    problems = Diagnostics()
    with tempfile.TemporaryDirectory() as work:
        at = Path(work) / Path(file).name
        spec = build(root, at, problems)
        for beside in dict.fromkeys(_included(plain(root))):
            _write_beside(Path(work), beside, f"{revision}:{_joined(file, beside)}")
        if spec.weights is not None and spec.weights.file is not None:
            weights = os.path.join(folder, os.path.expanduser(spec.weights.file))
            spec = replace(spec, weights=replace(spec.weights, file=weights))
        return compile_spec(spec, request, need_weights=False, problems=problems)


def _included(value: object) -> Iterator[str]:
    """Names of the files that `custom` stages read."""
    if isinstance(value, list):
        for item in cast("list[object]", value):
            yield from _included(item)
    elif isinstance(value, dict):
        entries = cast("dict[str, object]", value)
        custom = entries.get("custom")
        name = cast("dict[str, object]", custom).get("file") if isinstance(custom, dict) else None
        if isinstance(name, str):
            yield name
        for inner in entries.values():
            yield from _included(inner)


def _write_beside(folder: Path, name: str, at: str) -> None:
    """Put a revision's file where its spec looks for it; one that is not there, or outside, the stage tells."""
    target = (folder / name).resolve()
    if not target.is_relative_to(folder.resolve()):
        return
    try:
        data = blob(at, MAX_BYTES)
    except SpecError:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)


def _joined(file: str, beside: str) -> str:
    """The path of a file beside another one, in git's form: a leading `./` stays."""
    folder = file.rpartition("/")[0]
    return f"{folder}/{beside}" if folder else beside


def _working_folder(file: str) -> Path:
    """The folder of the working tree in which a revision's file lies."""
    if file.startswith(("./", "../")):
        return Path(file).parent
    return top_folder() / Path(file).parent


def _decoded(name: str, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SpecError.of("encoding", f"{name}: the byte at {error.start} is not UTF-8") from None
