"""Names of tensors that HuggingFace loads too: a decoder's without `model.`, and a head that is the embedding.

The importers know the names that `save_pretrained` writes. A file with others is shown to them under those names, and
the spec gets the file's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, cast

from flowc.importers.family import Family, Shapes

_ROOT, _EMBEDDING, _HEAD = "model.", "embed_tokens.weight", "lm_head.weight"


def renamed(shapes: Shapes, *, tied: Any) -> dict[str, str]:
    """The name that an importer expects for each tensor that is called otherwise; empty where all are as expected."""
    names: dict[str, str] = {}
    if _EMBEDDING in shapes and "norm.weight" in shapes:
        names = {name: _ROOT + name for name in shapes if name != _HEAD and not name.startswith("lm_head.")}
    embedded = any(name.endswith(_EMBEDDING) for name in shapes)
    if (
        not embedded
        and tied is not False
        and _HEAD in shapes
        and any(n.endswith("layers.0.input_layernorm.weight") for n in shapes)
    ):
        names[_HEAD] = _ROOT + _EMBEDDING
    return names


def as_stored(family: Family, stored: Mapping[str, str], shapes: Shapes) -> Family:
    """The family with the file's own names in place of those that its importer expects."""
    bare = any(name == expected.removeprefix(_ROOT) for expected, name in stored.items())

    def rename(value: Any) -> Any:
        if isinstance(value, str):
            if value in stored:
                return stored[value]
            return value.removeprefix(_ROOT) if bare and value.startswith(_ROOT) and value not in shapes else value
        if isinstance(value, Mapping):
            return {key: rename(inner) for key, inner in cast("Mapping[str, Any]", value).items()}
        return [rename(item) for item in cast("list[Any]", value)] if isinstance(value, list) else value

    return replace(family, flow=rename(family.flow), allow_unused=rename(family.allow_unused))
