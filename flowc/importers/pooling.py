"""Poolers behind an encoder: those asked for by name, and those of a sentence-transformers folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from flowc.errors import SpecError, nearest
from flowc.importers.family import Family
from flowc.outside.reading import Unreadable, read_json, reason_of

HOWS = ("mean", "cls", "max", "last", "mean_sqrt_len")
NAMES = tuple(f"{how}{ending}" for how in HOWS for ending in ("", "_l2"))
"""What can be asked for; `_l2` scales the vector to length 1."""

_MODES = {
    "pooling_mode_mean_tokens": "mean", "pooling_mode_cls_token": "cls", "pooling_mode_max_tokens": "max",
    "pooling_mode_lasttoken": "last", "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len",
}  # fmt: skip
_MODE_NAMES = {"mean": "mean", "cls": "cls", "max": "max", "lasttoken": "last", "mean_sqrt_len_tokens": "mean_sqrt_len"}
_NEUTRAL = {"word_embedding_dimension", "embedding_dimension"}


@dataclass(frozen=True, slots=True)
class Pooling:
    """One pooled output."""

    how: str
    normalize: bool

    @property
    def stage(self) -> dict[str, Any]:
        """The stage that makes it: mean_pooled, cls_pooled_l2 ..."""
        output = f"{self.how}_pooled{'_l2' if self.normalize else ''}"
        return {"pool": {"how": self.how, **({"normalize": True} if self.normalize else {}), "output": output}}


def named(name: str) -> Pooling:
    """The pooler of a name such as `mean` or `mean_l2`; SpecError when there is none."""
    if name not in NAMES:
        message = f"there is no pooler '{name}'"
        raise SpecError.of("unknown-pooler", message, hint=nearest(name, NAMES) or f"poolers: {', '.join(NAMES)}")
    return Pooling(name.removesuffix("_l2"), name.endswith("_l2"))


def transformer_folder(folder: Path) -> Path:
    """Where the transformer itself lies: a folder below in some sentence-transformers checkpoints."""
    first = next((m for m in _modules(folder) if m["type"].endswith(".Transformer")), None)
    return folder / first["path"] if first is not None else folder


def of_folder(folder: Path) -> list[Pooling]:
    """What `modules.json` puts behind the transformer; a step that flowc cannot reproduce is refused by name."""
    found: list[Pooling] = []
    for module in _modules(folder):
        kind = module["type"].rpartition(".")[2]
        if kind == "Pooling" and not found:
            config = folder / module["path"] / "config.json"
            found.append(Pooling(_mode(config, prompts=_has_prompts(folder)), False))
        elif kind == "Normalize" and found:
            found[-1] = replace(found[-1], normalize=True)
        elif kind != "Transformer":
            raise SpecError.of(
                "unsupported-config", f"modules.json has a step '{module['type']}' here, which flowc does not make",
                hint="flowc knows Transformer, then Pooling, then Normalize",
            )  # fmt: skip
    return found


def _modules(folder: Path) -> list[dict[str, str]]:
    path = folder / "modules.json"
    if not path.exists():
        return []
    modules = _json(path)
    if not isinstance(modules, list):
        raise SpecError.of("bad-type", f"'{path.name}' of a sentence-transformers folder is a list of modules")
    found: list[dict[str, str]] = []
    for module in cast("list[Any]", modules):
        fields = cast("dict[str, Any]", module) if isinstance(module, dict) else {}
        kind, where = fields.get("type"), fields.get("path", "")
        if not isinstance(kind, str) or not isinstance(where, str) or Path(where).is_absolute() or ".." in where:
            raise SpecError.of("bad-type", f"a module of '{path.name}' needs a `type` and a `path` below the folder")
        found.append({"type": kind, "path": where})
    return found


def _has_prompts(folder: Path) -> bool:
    """Whether texts get a prompt before them, always or when a caller names one."""
    path = folder / "config_sentence_transformers.json"
    whole: Any = _json(path) if path.is_file() else {}
    prompts: Any = cast("dict[str, Any]", whole).get("prompts") if isinstance(whole, dict) else None
    return isinstance(prompts, dict) and any(cast("dict[str, Any]", prompts).values())


def _mode(path: Path, *, prompts: bool) -> str:
    """The one way of pooling that a `1_Pooling/config.json` chooses."""
    config, where = _json(path), f"{path.parent.name}/{path.name}"
    if not isinstance(config, dict):
        raise SpecError.of("bad-type", f"{where} is no mapping")
    chosen: list[str] = []
    for key, value in cast("dict[str, Any]", config).items():
        if key in _MODES:
            chosen += [_MODES[key]] if value is True else []
        elif key == "pooling_mode" and all(isinstance(m, str) and m in _MODE_NAMES for m in _several(value)):
            chosen += [_MODE_NAMES[mode] for mode in _several(value)]
        elif key == "include_prompt":
            if value is False and prompts:
                raise SpecError.of(
                    "unsupported-config",
                    f"field 'include_prompt' of {where} is False: tokens of a prompt are read and not pooled, "
                    "which one mask cannot say",
                    hint="without modules.json the model itself is imported; --pool adds poolers",
                )
        elif key not in _NEUTRAL and value not in (False, None):
            message = f"field '{key}' of {where} is {value!r}, which flowc does not reproduce"
            raise SpecError.of("unsupported-config", message)
    if len(set(chosen)) != 1:
        raise SpecError.of("unsupported-config", f"{where} chooses {len(chosen)} ways of pooling; flowc takes one")
    return chosen[0]


def _several(value: Any) -> list[Any]:
    return cast("list[Any]", value) if isinstance(value, list) else [value]


def _json(path: Path) -> Any:
    try:
        return read_json(path)
    except (OSError, Unreadable) as e:
        raise SpecError.of("bad-type", f"'{path.name}' cannot be read as JSON: {reason_of(e)}") from None


def with_poolers(family: Family, poolers: Sequence[Pooling], model_type: str) -> Family:
    """The family with pooled outputs behind its last hidden state."""
    if not poolers:
        return family
    if family.hidden_at is None:
        raise SpecError.of(
            "unsupported-config", f"poolers are for text encoders, and '{model_type}' is none",
            hint="without --pool and without `modules.json` the model itself is imported",
        )  # fmt: skip
    at = family.hidden_at
    stages = [p.stage for p in dict.fromkeys(poolers)]
    return replace(family, flow=[*family.flow[:at], *stages, *family.flow[at:]])
