"""Files beside a spec: texts that its stages name instead of holding them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast


def read_beside(folder: Path, name: str, limit: int) -> str:
    """The text of a file in a folder or below it, of at most `limit` bytes; raises ValueError with the reason."""
    folder = folder.resolve()
    path = (folder / name).resolve()
    if Path(name).is_absolute() or not path.is_relative_to(folder):
        raise ValueError(f"'{name}' lies outside the spec's folder")
    if not path.is_file():
        raise ValueError(f"there is no file '{name}' beside the spec")
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except OSError as error:
        raise ValueError(f"cannot read '{name}': {error.strerror}") from None
    if len(data) > limit:
        raise ValueError(f"'{name}' is larger than {limit} bytes")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"'{name}' is not UTF-8") from None


def inlined(value: object, included: Mapping[str, str]) -> object:
    """Plain values of a spec with the text itself wherever a `custom` stage names a file of it."""
    if isinstance(value, list):
        return [inlined(item, included) for item in cast("list[object]", value)]
    if not isinstance(value, dict):
        return value
    out = {k: inlined(v, included) for k, v in cast("dict[str, object]", value).items()}
    body = out.get("custom")
    if isinstance(body, dict):
        fields = cast("dict[str, object]", body)
        name = fields.get("file")
        if isinstance(name, str) and name in included:
            out["custom"] = {**{k: v for k, v in fields.items() if k != "file"}, "onnx": included[name]}
    return out
