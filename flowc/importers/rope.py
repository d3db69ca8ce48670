"""The rope of a configuration, read as HuggingFace's classes read it (`modeling_rope_utils`, transformers 5.23).

Old layout (`rope_theta`, `rope_scaling`) and new (`rope_parameters`) come together there by rules of their own, which
`single` and `by_layer` follow: which of two fields counts, what a null says, which field is read at another place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

from flowc.importers.config import Config
from flowc.ir.rope import RopeFacts, longrope_attention_factor, yarn_attention_factor

KINDS = ("default", "linear", "dynamic", "llama3", "yarn", "longrope")
_LENGTHS = ("llama3", "yarn", "longrope")
_KNOWN = frozenset({
    "type", "rope_type", "rope_theta", "partial_rotary_factor", "factor", "original_max_position_embeddings",
    "attention_factor", "beta_fast", "beta_slow", "short_factor", "long_factor", "low_freq_factor", "high_freq_factor",
    "mscale", "mscale_all_dim", "truncate", "mrope_section", "mrope_interleaved", "finetuned",
})  # fmt: skip
"""Parameters of any rope. HuggingFace ignores one that the type in force has no use for, and so does flowc; with text
alone the sections of a multimodal rope have equal positions."""
_HUGE = 1e30
_FIELDS = ("rope_parameters", "rope_theta", "rope_scaling", "partial_rotary_factor", "original_max_position_embeddings")


@dataclass(frozen=True, slots=True)
class Found:
    """A rope's parameters with what stands elsewhere in the configuration brought in; numbers are not checked yet."""

    config: Config
    values: Mapping[str, Any]
    where: str
    """The field that a refusal names."""
    truncate: bool = True

    @property
    def kind(self) -> Any:
        """The rope's type; `type` is its old name and says nothing beside `rope_type`."""
        return self.values.get("rope_type", self.values.get("type", "default"))

    def refuse(self, why: str) -> None:
        """Collect a refusal of the field that these parameters are from."""
        self.config.refuse(self.where, why)

    def number(self, key: str, default: float | None = None) -> float:
        """A positive, finite number; `default` where there is none."""
        value = self.values.get(key)
        if value is None and default is not None:
            return default
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < _HUGE:
            return float(value)
        self.refuse(f"'{key}' must be a positive number")
        return 1.0 if default is None else default

    def numbers(self, key: str, count: int) -> list[float]:
        """A list of positive numbers, one for each of `count` pairs of channels."""
        values = self.values.get(key)
        if isinstance(values, list):
            items = cast("list[Any]", values)
            sound = all(isinstance(v, (int, float)) and not isinstance(v, bool) and 0 < v < _HUGE for v in items)
            if sound and len(items) == count:
                return [float(v) for v in items]
        self.refuse(f"'{key}' must be a list of {count} positive numbers")
        return [1.0] * count


def single(
    config: Config, *, theta: float = 10000.0, partial: float | None = None, renamed: Mapping[str, str] | None = None
) -> Found:
    """The one rope of all layers.

    `rope_scaling` takes the place of `rope_parameters` whole. `theta` and `partial` are the class's defaults, `renamed`
    the types that it takes for another. A field at the top says the original length, over the parameters' own.
    """
    config.skip(*_FIELDS)
    scaling, block = _mapping(config, "rope_scaling"), _mapping(config, "rope_parameters")
    values, data = dict(scaling or block or {}), config.data
    where = "rope_scaling" if scaling else "rope_parameters" if block else "rope_theta"
    if nested := [key for key, value in values.items() if isinstance(value, Mapping)]:
        config.refuse(where, f"this family has one rope for all layers, not one for {', '.join(nested)}")
    values.setdefault("rope_theta", data.get("rope_theta", theta))
    turning = data.get("partial_rotary_factor", partial)
    if turning is not None:
        values.setdefault("partial_rotary_factor", turning)
    kind = values.get("rope_type", values.get("type", "default"))
    values["rope_type"] = (renamed or {}).get(kind, kind) if isinstance(kind, str) else kind
    if "original_max_position_embeddings" in data:
        values["original_max_position_embeddings"] = data["original_max_position_embeddings"]
    return Found(config, values, where, bool(values.get("truncate", True)))


def by_layer(config: Config, layer_type: str, *, base: str, theta: float, scaled: bool) -> Found:
    """The rope of one layer type, where each has an entry of its own in `rope_parameters`.

    `base` is the field that says the theta where the entry does not, `theta` what the class says where neither does.
    `rope_scaling` is added to the entry where the type is `scaled`; in it, `type` counts only without a `rope_type`.
    """
    config.skip(*_FIELDS, base)
    scaling, block = _mapping(config, "rope_scaling"), _mapping(config, "rope_parameters")
    where, data = "rope_parameters" if block else "rope_scaling" if scaling else base, config.data
    entry: Any = {"rope_type": "default"} if block is None else block.get(layer_type)
    if block and not any(isinstance(value, Mapping) for value in block.values()):
        config.refuse("rope_parameters", f"it has no entry '{layer_type}'")
    if block and (strange := sorted(k for k, v in block.items() if k not in _KNOWN and not _entry(k, v))):
        config.refuse("rope_parameters", f"'{strange[0]}' is not known")
    if entry is not None and not isinstance(entry, Mapping):
        config.refuse("rope_parameters", f"its entry '{layer_type}' must be a mapping")
        entry = None
    if scaling is not None and scaled and entry is None:
        config.refuse("rope_scaling", f"it goes with an entry '{layer_type}' of `rope_parameters`, which is not there")
    values = {"rope_type": "default"} if entry is None else dict(cast("Mapping[str, Any]", entry))
    if scaling is not None and scaled:
        values.update(scaling)
    values.setdefault("rope_theta", data.get(base, theta))
    turning = data.get("partial_rotary_factor")
    if turning is not None:
        values.setdefault("partial_rotary_factor", turning)
    # HuggingFace looks for this one beside the entries, not in them.
    return Found(config, values, where, bool((block or {}).get("truncate", True)))


def _entry(key: str, value: Any) -> bool:
    return value is None or isinstance(value, Mapping) or key.endswith("_attention")


def _mapping(config: Config, key: str) -> dict[str, Any] | None:
    """A field that is a mapping, or None; anything else is refused."""
    value = config.data.get(key)
    if value is None or isinstance(value, dict):
        return cast("dict[str, Any] | None", value)
    config.refuse(key, "it must be a mapping")
    return None


def rope_stage(found: Found, head_dim: int, *, turns_part: bool = False, name: str | None = None) -> dict[str, Any]:
    """The fields of a `rope_tables` stage.

    Where the family's class does not turn a part of a head (`turns_part`), a rope of the default type ignores
    `partial_rotary_factor`, and any other must turn whole heads.
    """
    stage: dict[str, Any] = {} if name is None else {"name": name}
    kind = found.kind
    if kind not in KINDS:
        found.refuse(f"rope type {kind!r} is not one of {', '.join(KINDS)}")
        return {**stage, "theta": 10000.0, "head_dim": head_dim}
    for key, value in found.values.items():
        if key not in _KNOWN and not isinstance(value, Mapping):
            found.refuse(f"'{key}' is not known")
    stage["theta"] = found.number("rope_theta")
    stage["head_dim"] = head_dim
    rotary = head_dim
    if turns_part or kind != "default":
        rotary = int(head_dim * found.number("partial_rotary_factor", 1.0))
    if rotary != head_dim:
        _refuse_part(found, head_dim, rotary, turns_part=turns_part, kind=kind)
        stage["rotary_dim"] = max(1, min(rotary, head_dim))
    if kind != "default":
        stage["type"] = kind
        _scaling(stage, kind, found, max(1, min(rotary, head_dim)))
    return stage


def _refuse_part(found: Found, head_dim: int, rotary: int, *, turns_part: bool, kind: str) -> None:
    where = "partial_rotary_factor" if found.config.has("partial_rotary_factor") else found.where
    if not turns_part:
        found.config.refuse(where, "this family turns whole heads")
    elif rotary < 1 or rotary + rotary % 2 > head_dim or (rotary % 2 and kind in ("yarn", "longrope")):
        found.config.refuse(where, f"{rotary} of the {head_dim} channels of a head cannot turn")


def _scaling(stage: dict[str, Any], kind: str, read: Found, rotary: int) -> None:
    """Adds the numbers of a rope that is not the default one, each as the formula takes it."""
    length = read.config.int("max_position_embeddings")
    if kind == "dynamic":
        stage["original_length"] = length
        return
    original = int(read.number("original_max_position_embeddings", float(length))) if kind in _LENGTHS else 0
    implied = length / original if kind in ("yarn", "longrope") and original else None
    factor = read.number("factor", implied)
    if kind in ("linear", "llama3", "yarn"):
        stage["factor"] = factor
    if kind in _LENGTHS:
        stage["original_length"] = original
    if kind == "llama3":
        stage["low_freq_factor"] = read.number("low_freq_factor")
        stage["high_freq_factor"] = read.number("high_freq_factor")
    if kind == "yarn":
        # Falsy values stand for the defaults, and both of the two scales or none are in force.
        stage["beta_fast"] = read.number("beta_fast") if read.values.get("beta_fast") else 32.0
        stage["beta_slow"] = read.number("beta_slow") if read.values.get("beta_slow") else 1.0
        stage["truncate"] = read.truncate
        both = all(read.values.get(key) for key in ("mscale", "mscale_all_dim"))
        scales = [read.number(key) for key in ("mscale", "mscale_all_dim")] if both else []
        stage["attention_factor"] = read.number("attention_factor", yarn_attention_factor(factor, *scales))
    if kind == "longrope":
        if original < 2:
            read.refuse("a longrope needs an original length of two tokens or more")
            original = 2
        stage["attention_factor"] = read.number("attention_factor", longrope_attention_factor(factor, original))
        stage["short_factor"] = read.numbers("short_factor", rotary // 2)
        stage["long_factor"] = read.numbers("long_factor", rotary // 2)
    _refuse_unsound(stage, kind, read, rotary)


def _refuse_unsound(stage: Mapping[str, Any], kind: Any, read: Found, rotary: int) -> None:
    short, long = stage.get("short_factor", ()), stage.get("long_factor", ())
    names = ("factor", "low_freq_factor", "high_freq_factor", "original_length", "beta_fast", "beta_slow", "truncate")
    numbers: dict[str, Any] = {name: stage[name] for name in names if name in stage}
    facts = RopeFacts(stage["theta"], rotary, kind, **numbers, short_factor=tuple(short), long_factor=tuple(long))
    if not facts.sound():
        read.refuse("these numbers give no finite frequencies")
