"""Chat templates, in every place where transformers looks for them.

chat_template.jinja                        the template called default
additional_chat_templates/NAME.jinja       more, by name (chat_templates/ in some folders)
tokenizer_config.json, chat_template       one text, a list of {name, template}, or a mapping; files count before it
chat_template.json                         a processor's; it counts where there is none else
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from flowc.tokenizer.reading import Json, read_json, read_text

FOLDERS = ("additional_chat_templates", "chat_templates")
DEFAULT = "default"


def templates(folder: Path, config: Mapping[str, Any]) -> dict[str, str]:
    """All templates of a folder by name; `config` is its tokenizer_config.json. WeightsError `broken-tokenizer`."""
    found: dict[str, str] = {}
    if (folder / "chat_template.jinja").exists():
        found[DEFAULT] = read_text(folder / "chat_template.jinja")
    for below in FOLDERS:
        for file in sorted((folder / below).glob("*.jinja")) if (folder / below).is_dir() else []:
            found.setdefault(file.name.removesuffix(".jinja"), read_text(file))
    return found or named(config.get("chat_template")) or named(_processors(folder))


def _processors(folder: Path) -> Any:
    return read_json(folder / "chat_template.json").get("chat_template")


def named(value: Any) -> dict[str, str]:
    """The templates of a `chat_template` field by name: a text is the default one."""
    if isinstance(value, str):
        return {DEFAULT: value}
    if isinstance(value, list):
        entries = [cast("Json", e) for e in cast("list[Any]", value) if isinstance(e, dict)]
        value = {str(entry.get("name")): entry.get("template") for entry in entries}
    if not isinstance(value, dict):
        return {}
    return {str(n): t for n, t in cast("Json", value).items() if isinstance(t, str)}


def field_of(found: Mapping[str, str]) -> Any:
    """The `chat_template` field that says the same as these templates; None for none."""
    if list(found) == [DEFAULT]:
        return found[DEFAULT]
    return [{"name": name, "template": text} for name, text in found.items()] or None
