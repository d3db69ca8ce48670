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
_COMMON = {"rope_type", "type", "rope_theta", "partial_rotary_factor"}


def parameters(config: Config, layer_type: str | None = None) -> dict[str, Any]:
    """The rope parameters of a configuration (of one layer type, where they differ), in the new layout's terms."""
    config.skip("rope_parameters", "rope_theta", "rope_scaling", "partial_rotary_factor")
    block = _mapping(config.get("rope_parameters"))
    if layer_type is not None and isinstance(block.get(layer_type), Mapping):
        block = _mapping(block[layer_type])
    found = {k: v for k, v in block.items() if v is not None and not isinstance(v, Mapping)}
    if not block:
        found = {k: v for k, v in _mapping(config.get("rope_scaling")).items() if v is not None}
    for key in ("rope_theta", "partial_rotary_factor"):
        if config.has(key):
            found.setdefault(key, config.get(key))
    return found


def _mapping(value: Any) -> dict[str, Any]:
    """A field of the configuration that should be a mapping; empty when it is anything else."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


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
    where = "rope_parameters" if config.has("rope_parameters") else "rope_scaling"
    if kind not in _KNOWN:
        config.refuse(where, f"rope type '{kind}' is not one of {', '.join(_KNOWN)}")
        return {"theta": theta}
    for key in found:
        if key not in _KNOWN[kind] | _COMMON and found[key] is not None:
            config.refuse(where, f"'{key}' is not a parameter of rope type '{kind}'")
    base = found.get("rope_theta", theta)
    stage: dict[str, Any] = {} if name is None else {"name": name}
    stage["theta"] = float(base) if base is not None else 10000.0
    stage["head_dim"] = head_dim
    rotary = int(head_dim * float(found.get("partial_rotary_factor", partial)))
    if rotary != head_dim:
        stage["rotary_dim"] = rotary
    if kind != "default":
        stage["type"] = kind
        _scaling(config, stage, kind, found, where)
    return stage


def _scaling(config: Config, stage: dict[str, Any], kind: str, found: Mapping[str, Any], where: str) -> None:
    length = config.int("max_position_embeddings", 0)
    top = config.get("original_max_position_embeddings")
    original = int(top or found.get("original_max_position_embeddings") or length)
    factor = found.get("factor")
    if kind == "dynamic":
        stage["original_length"] = length
        return
    if factor is None and kind in ("yarn", "longrope"):
        factor = length / original
    if factor is None:
        config.refuse(where, f"rope type '{kind}' needs a `factor`")
        factor = 1.0
    factor = float(factor)
    if kind in ("linear", "llama3", "yarn"):
        stage["factor"] = factor
    if kind in ("llama3", "yarn", "longrope"):
        stage["original_length"] = original
    if kind == "llama3":
        stage["low_freq_factor"] = float(found["low_freq_factor"])
        stage["high_freq_factor"] = float(found["high_freq_factor"])
    given = found.get("attention_factor")
    if kind == "yarn":
        stage["beta_fast"] = float(found.get("beta_fast") or 32.0)
        stage["beta_slow"] = float(found.get("beta_slow") or 1.0)
        stage["truncate"] = bool(found.get("truncate", True))
        own = yarn_attention_factor(factor, found.get("mscale"), found.get("mscale_all_dim"))
        stage["attention_factor"] = float(given) if given is not None else own
    if kind == "longrope":
        own = longrope_attention_factor(factor, original)
        stage["attention_factor"] = float(given) if given is not None else own
        stage["short_factor"] = [float(v) for v in found.get("short_factor", ())]
        stage["long_factor"] = [float(v) for v in found.get("long_factor", ())]
