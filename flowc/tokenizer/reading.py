"""Small files beside weights: JSON objects and texts, with errors that name the file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

from flowc.errors import WeightsError
from flowc.outside import reading
from flowc.weights.files import LFS_POINTER, lfs_pointer

Json = dict[str, Any]

_LARGEST = 1 << 28
"""Bytes; the largest tokenizer.json in use has 34 MB."""


def read_text(path: Path) -> str:
    """A text file. WeightsError `broken-tokenizer`, `lfs-pointer`."""
    try:
        text = reading.read_text(path, _LARGEST)
    except (OSError, reading.Unreadable) as error:
        raise WeightsError.of("broken-tokenizer", f"cannot read {path}: {reading.reason_of(error)}") from None
    if text.startswith(LFS_POINTER):
        raise lfs_pointer(str(path))
    return text


def read_json(path: Path | None) -> Json:
    """A JSON object; empty where there is no such file. WeightsError `broken-tokenizer`."""
    if path is None or not path.exists():
        return {}
    try:
        found: Any = reading.json_of(read_text(path).encode())
    except reading.Unreadable as error:
        raise WeightsError.of("broken-tokenizer", f"cannot read {path}: {error}") from None
    if not isinstance(found, dict):
        raise WeightsError.of("broken-tokenizer", f"cannot read {path}: it is no JSON object")
    return cast("Json", found)


def write_json(value: object) -> bytes:
    """The bytes of a JSON file that flowc writes."""
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode()
