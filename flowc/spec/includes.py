"""Files beside a spec: texts that its stages name instead of holding them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import cast

from flowc.outside.reading import TooLarge, Unreadable, read_text


def read_beside(folder: Path, name: str, limit: int) -> str:
    """The text of a file in a folder or below it, of at most `limit` bytes; raises ValueError with the reason."""
    folder = folder.resolve()
    path = (folder / name).resolve()
    if Path(name).is_absolute() or not path.is_relative_to(folder):
        raise ValueError(f"'{name}' lies outside the spec's folder")
    try:
        return read_text(path, limit)
    except FileNotFoundError:
        raise ValueError(f"there is no file '{name}' beside the spec") from None
    except TooLarge:
        raise ValueError(f"'{name}' is larger than {limit} bytes") from None
    except Unreadable as error:
        raise ValueError(f"cannot read '{name}': {error}") from None


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
