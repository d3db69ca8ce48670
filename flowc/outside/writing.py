"""Every file that flowc writes on its own: whole or not at all, and never over what was not meant.

A command says before it works where it will write (`claim`): a path that nobody can write, a file that the command
reads, a file that such a command did not write are refused then, not after an hour. The file itself appears under its
name when it is complete (`write_whole`).
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import tempfile
from collections.abc import Callable, Iterable
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from flowc.errors import SpecError, cannot_write
from flowc.outside.reading import open_at_once

Ours = Callable[[BinaryIO], bool]
"""Whether the file of a stream is one that the command would write."""

_HEAD = 4096


def holds(mark: bytes) -> Ours:
    """Tells files whose first bytes hold a mark."""
    return lambda stream: mark in stream.read(_HEAD)


def claim(path: Path, reads: Iterable[Path] = (), ours: Ours | None = None, *, force: bool = False) -> None:
    """Refuse a path for an output before any work is done.

    Args:
        path: where a file will be written.
        reads: what the command reads, or must leave alone.
        ours: tells a file that may be replaced; an empty one may. None: whatever is there may.
        force: replace also what is not `ours`, but nothing of `reads`.

    Raises:
        SpecError: the path cannot be spelled or is a folder; it is one of `reads`; a file is there that is not `ours`.
        MissingTool: the folder takes no files.
    """
    spelled(path)
    refuse_overwrite(reads, [path])
    try:
        if path.is_dir():
            raise SpecError.of("bad-output", f"cannot write {path}: it is a folder")
        if not path.exists():
            _writable_above(path)
            return
        if path.is_file() and ours is not None and not force:
            with open_at_once(path) as raw, BufferedReader(raw) as stream:
                replaceable = not path.stat().st_size or ours(stream)
            if not replaceable:
                raise SpecError.of(
                    "foreign-file", f"'{path}' exists, and is nothing that this command writes",
                    hint="remove it, or name another file",
                )  # fmt: skip
    except OSError as error:
        raise cannot_write(path, error) from None


def _writable_above(path: Path) -> None:
    above = next(p for p in path.absolute().parents if p.exists())
    if not above.is_dir():
        raise OSError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
    if not os.access(above, os.W_OK | os.X_OK):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))


def spelled(path: Path) -> None:
    """Refuse a path that this machine's encoding of names, or UTF-8, has no way to write.

    Manifests name files in UTF-8 and onnxruntime takes paths so: such a build could be written, and never used.
    """
    text = str(path)
    try:
        text.encode("utf-8")
        os.fsencode(text)
    except UnicodeEncodeError:
        hint = "is LC_ALL or LANG one of UTF-8?"
        raise SpecError.of("bad-output", f"cannot write {text!a}: the name is not text here", hint=hint) from None
    if "\0" in text:
        raise SpecError.of("bad-output", f"cannot write {text!a}: it holds a zero")


def refuse_overwrite(reads: Iterable[Path], outputs: Iterable[Path]) -> None:
    """Refuse to write over what is read, under whatever name or link. Raises SpecError `bad-output`."""
    for output, source in itertools.product(outputs, reads):
        if same(output, source):
            raise SpecError.of("bad-output", f"cannot write {output}: the command reads it")


def same(output: Path, source: Path) -> bool:
    """Whether two paths are one file; not when one of them is not there."""
    try:
        return output.samefile(source)
    except (OSError, ValueError):
        return False


def write_whole(path: Path, content: str | bytes | Callable[[BinaryIO], object]) -> None:
    """Write a text (as UTF-8), bytes, or what a function puts into a stream, under a temporary name; then rename it.

    What is no regular file (/dev/stdout, a pipe) is written into. Raises what `cannot_write` gives.
    """
    spelled(path)
    try:
        if path.exists() and not path.is_file():
            with path.open("wb") as stream:
                _put(stream, content)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".flowc-")
        try:
            with open(handle, "wb") as stream:
                _put(stream, content)
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise cannot_write(path, error) from None


def _put(stream: BinaryIO, content: str | bytes | Callable[[BinaryIO], object]) -> None:
    if isinstance(content, str):
        stream.write(content.encode("utf-8"))
    elif isinstance(content, bytes):
        stream.write(content)
    else:
        content(stream)
