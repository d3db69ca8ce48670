"""Files that somebody else wrote, read within bounds.

A path may name anything: a FIFO that nobody writes to, /dev/zero, a file of 6 GB, JSON with a million brackets. So only
regular files are read, opened without waiting, up to a size; JSON up to a depth. What is wrong is told by `Unreadable`,
as the end of a sentence; a file that is not there raises FileNotFoundError. Each reader gives it a code of its own.
"""

from __future__ import annotations

import json
import os
import re
import stat
from io import FileIO
from pathlib import Path
from typing import Any, cast

MAX_SIDE_FILE = 64 << 20
"""Bytes of a manifest, a recording, an index, a configuration."""

MAX_DEPTH = 64
"""Lists and maps inside one another in JSON: what flowc's own reader of specs takes, too."""

_HALF_PAIR = re.compile(rb"\\u[dD][89a-fA-F]")


class Unreadable(ValueError):
    """Why a file cannot be read, as in `it is not a regular file`."""


class TooLarge(Unreadable):
    """A file has more bytes than its reader takes."""


def reason_of(error: OSError | Unreadable) -> str:
    """Why a reader of this module failed, as the end of a sentence."""
    return str(error) if isinstance(error, Unreadable) else (error.strerror or str(error)).lower()


def open_at_once(path: Path) -> FileIO:
    """A file opened for reading, never waiting for somebody to write to it. Raises OSError, ValueError."""
    return FileIO(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))


def read_bytes(path: Path, limit: int) -> bytes:
    """All of a regular file of at most `limit` bytes. Raises FileNotFoundError, Unreadable."""
    try:
        with open_at_once(path) as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                raise Unreadable("it is not a regular file")
            return _read(stream, limit)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Unreadable(reason_of(error)) from None
    except ValueError as error:  # a path that no file can have
        raise error if isinstance(error, Unreadable) else Unreadable(str(error)) from None


def _read(stream: FileIO, limit: int) -> bytes:
    parts: list[bytes] = []
    left = limit + 1
    while left and (part := stream.read(min(left, 1 << 20))):
        parts.append(part)
        left -= len(part)
    if not left:
        raise TooLarge(f"it is larger than {limit} bytes")
    return b"".join(parts)


def read_text(path: Path, limit: int = MAX_SIDE_FILE) -> str:
    """A file's text, UTF-8. Raises FileNotFoundError, Unreadable."""
    data = read_bytes(path, limit)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unreadable(f"it is not UTF-8: byte 0x{data[error.start]:02X} at {error.start}") from None


def read_json(path: Path, limit: int = MAX_SIDE_FILE) -> Any:
    """A file's JSON value. Raises FileNotFoundError, Unreadable."""
    return json_of(read_bytes(path, limit))


def json_of(data: bytes) -> Any:
    """The value of JSON in UTF-8, nested at most `MAX_DEPTH` deep, its texts whole. Raises Unreadable."""
    try:
        value: Any = json.loads(data.decode("utf-8"))
    except RecursionError:
        raise Unreadable(f"its lists and maps are nested more than {MAX_DEPTH} deep") from None
    except ValueError as error:  # UnicodeDecodeError is one, a number of 5,000 digits another
        raise Unreadable(f"it is not JSON: {error}") from None
    _bounded(value, check_texts=_HALF_PAIR.search(data) is not None)
    return value


def _bounded(value: object, *, check_texts: bool) -> None:
    """Look through a value level by level: a recursion is what a deep one would break."""
    level, depth = [value], 0
    while level:
        below: list[object] = []
        for item in level:
            if depth == MAX_DEPTH and isinstance(item, dict | list):
                raise Unreadable(f"its lists and maps are nested more than {MAX_DEPTH} deep")
            if isinstance(item, dict):
                entries = cast("dict[str, object]", item)
                below += entries.values()
                if check_texts:
                    below += entries
            elif isinstance(item, list):
                below += cast("list[object]", item)
            elif check_texts and isinstance(item, str) and not _is_text(item):
                raise Unreadable("a text in it holds half of a UTF-16 surrogate pair")
        level, depth = below, depth + 1


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
