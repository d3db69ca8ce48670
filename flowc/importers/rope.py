"""The rope of a configuration, old layout (`rope_theta`, `rope_scaling`) or new (`rope_parameters`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from flowc.importers.config import Config
from flowc.ir.rope import longrope_attention_factor, yarn_attention_factor

_KNOWN = {
    "default": set[str](),
    "linear": {"factor"},
    "dynamic": {"factor", "original_max_position_embeddings"},
    "llama3": {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"},
    "yarn": {
        "factor", "original_max_position_embeddings", "attention_factor", "beta_fast", "beta_slow", "mscale",
        "mscale_all_dim", "truncate",
    },
    "longrope": {"factor", "original_max_position_embeddings", "attention_factor", "short_factor", "long_factor"},
}  # fmt: skip
_HUGE = 1e30
_COMMON = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}


def parameters(config: Config, layer_type: str | None = None, *, scaled: bool = True) -> dict[str, Any]:
    """The rope parameters of a configuration (of one layer type, where they differ), in the new layout's terms.

    A file of both layouts is read as HuggingFace does: `rope_scaling` takes the place of `rope_parameters`, or is
    added to those of the layer type, unless it is not `scaled`.
    """
    config.skip("rope_parameters", "rope_theta", "rope_scaling", "partial_rotary_factor")
    block, scaling = _mapping(config, "rope_parameters"), _mapping(config, "rope_scaling") if scaled else {}
    if layer_type is not None and isinstance(block.get(layer_type), Mapping):
        block = {**cast("dict[str, Any]", block[layer_type]), **scaling}
    else:
        block = scaling or block
    found = {k: v for k, v in block.items() if v is not None and not isinstance(v, Mapping)}
    for key in ("rope_theta", "partial_rotary_factor"):
        if config.has(key):
            found.setdefault(key, config.get(key))
    return found


def _mapping(config: Config, key: str) -> dict[str, Any]:
    """A field that is a mapping or absent; anything else is refused."""
    value = config.get(key)
    if value is None or isinstance(value, dict):
        return cast("dict[str, Any]", value or {})
    config.refuse(key, "it must be a mapping")
    return {}


class _Found:
    """The parameters of a rope, read as positive numbers; what is none is refused."""

    def __init__(self, config: Config, values: Mapping[str, Any], where: str) -> None:
        self.config = config
        self.values = values
        self.where = where

    def number(self, key: str, default: float | None = None) -> float:
        """A positive, finite number; `default` where there is none."""
        value = self.values.get(key)
        if value is None and default is not None:
            return default
        if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < _HUGE:
            return float(value)
        self.config.refuse(self.where, f"'{key}' must be a positive number")
        return 1.0 if default is None else default

    def numbers(self, key: str) -> list[float]:
        """A list of positive numbers."""
        values = self.values.get(key)
        if isinstance(values, list):
            items = cast("list[Any]", values)
            if all(isinstance(v, (int, float)) and not isinstance(v, bool) and 0 < v < _HUGE for v in items):
                return [float(v) for v in items]
        self.config.refuse(self.where, f"'{key}' must be a list of positive numbers")
        return []


def rope_stage(
    config: Config, head_dim: int, *, found: Mapping[str, Any] | None = None, theta: float | None = 10000.0,
    name: str | None = None, partial: float = 1.0,
) -> dict[str, Any]:  # fmt: skip
    """The fields of a `rope_tables` stage.

    `found` are the parameters (read from the configuration by default); `theta` and `partial` stand in where it names
    none, as the family's HF configuration class does.
    """
    found = dict(parameters(config) if found is None else found)
    kind = str(found.get("rope_type", found.get("type", "default")))
    if kind == "su":
        kind = "longrope"
    where = "rope_scaling" if config.get("rope_scaling") or not config.has("rope_parameters") else "rope_parameters"
    if kind not in _KNOWN:
        config.refuse(where, f"rope type '{kind}' is not one of {', '.join(_KNOWN)}")
        return {"theta": theta}
    for key in found:
        if key not in _KNOWN[kind] | _COMMON and found[key] is not None:
            config.refuse(where, f"'{key}' is not a parameter of rope type '{kind}'")
    read = _Found(config, found, where if config.has(where) else "rope_theta")
    stage: dict[str, Any] = {} if name is None else {"name": name}
    stage["theta"] = read.number("rope_theta", 10000.0 if theta is None else theta)
    stage["head_dim"] = head_dim
    rotary = int(head_dim * read.number("partial_rotary_factor", partial))
    if rotary != head_dim:
        stage["rotary_dim"] = rotary
    if kind != "default":
        stage["type"] = kind
        _scaling(config, stage, kind, read)
    return stage


def _scaling(config: Config, stage: dict[str, Any], kind: str, read: _Found) -> None:
    length = config.int("max_position_embeddings", 0)
    top = config.int("original_max_position_embeddings", 0)
    original = top or int(read.number("original_max_position_embeddings", float(length) if length > 0 else None))
    if kind == "dynamic":
        stage["original_length"] = length
        return
    factor = read.number("factor", length / original if kind in ("yarn", "longrope") and original else None)
    if kind in ("linear", "llama3", "yarn"):
        stage["factor"] = factor
    if kind in ("llama3", "yarn", "longrope"):
        stage["original_length"] = original
    if kind == "llama3":
        stage["low_freq_factor"] = read.number("low_freq_factor")
        stage["high_freq_factor"] = read.number("high_freq_factor")
    if kind == "yarn":
        stage["beta_fast"] = read.number("beta_fast", 32.0)
        stage["beta_slow"] = read.number("beta_slow", 1.0)
        stage["truncate"] = bool(read.values.get("truncate", True))
        scales = [read.number(key) if read.values.get(key) else None for key in ("mscale", "mscale_all_dim")]
        stage["attention_factor"] = read.number("attention_factor", yarn_attention_factor(factor, *scales))
    if kind == "longrope":
        if original < 2:
            config.refuse(read.where, "a longrope needs an original length of two tokens or more")
            original = 2
        stage["attention_factor"] = read.number("attention_factor", longrope_attention_factor(factor, original))
        stage["short_factor"], stage["long_factor"] = read.numbers("short_factor"), read.numbers("long_factor")
