"""Turns an oracle's HuggingFace folder into a GGUF as llama.cpp's converter does, with the gguf library's names."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf import MODEL_ARCH, MODEL_ARCH_NAMES, get_tensor_name_map

from flowc.weights import open_checkpoint
from tests.weights.making import write_gguf

Array = npt.NDArray[Any]

ARCHITECTURES = {
    "llama": MODEL_ARCH.LLAMA,
    "smollm3": MODEL_ARCH.SMOLLM3,
    "qwen2": MODEL_ARCH.QWEN2,
    "qwen3": MODEL_ARCH.QWEN3,
    "qwen3_moe": MODEL_ARCH.QWEN3MOE,
    "gemma": MODEL_ARCH.GEMMA,
    "gemma2": MODEL_ARCH.GEMMA2,
    "gemma3_text": MODEL_ARCH.GEMMA3,
    "phi3": MODEL_ARCH.PHI3,
}


def convert(folder: Path, out: Path, **more: Any) -> Path:
    """Write a GGUF of a folder. `more` are further metadata keys, `__` for a dot; None leaves one out."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    kind = config["model_type"]
    arch = MODEL_ARCH_NAMES[ARCHITECTURES[kind]]
    checkpoint = open_checkpoint(folder)
    raw = {name: checkpoint.read(name) for name in checkpoint.tensors()}
    tensors = _tensors(raw, kind, config)
    tensors.update(_divisors(kind, config))
    metadata = {**_metadata(kind, config), **more}
    stated = {f"{arch}__{key}": value for key, value in metadata.items() if value is not None}
    return write_gguf(out, tensors, arch, **stated)


def _rope(config: dict[str, Any]) -> dict[str, Any]:
    block = config["rope_parameters"]
    return block.get("full_attention", block)


def _metadata(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    rope, heads = _rope(config), config["num_attention_heads"]
    head_dim = config.get("head_dim") or config["hidden_size"] // heads
    found: dict[str, Any] = {
        "block_count": config["num_hidden_layers"],
        "context_length": config["max_position_embeddings"],
        "embedding_length": config["hidden_size"],
        "feed_forward_length": config["intermediate_size"],
        "attention__head_count": heads,
        "attention__head_count_kv": config["num_key_value_heads"],
        "attention__layer_norm_rms_epsilon": float(config["rms_norm_eps"]),
        "vocab_size": config["vocab_size"],
    }
    if config.get("head_dim"):
        found |= {"attention__key_length": head_dim, "attention__value_length": head_dim}
    if kind not in ("gemma", "gemma2"):
        found["rope__freq_base"] = float(rope["rope_theta"])
    if kind in ("llama", "phi3"):
        found["rope__dimension_count"] = int(head_dim * rope.get("partial_rotary_factor", 1.0))
    if rope["rope_type"] in ("linear", "yarn"):
        found |= {"rope__scaling__type": rope["rope_type"], "rope__scaling__factor": float(rope["factor"])}
    if "original_max_position_embeddings" in rope and rope["rope_type"] == "yarn":
        found["rope__scaling__original_context_length"] = rope["original_max_position_embeddings"]
    if kind == "phi3":
        found["attention__sliding_window"] = config["sliding_window"] or 0
        found["rope__scaling__original_context_length"] = config["original_max_position_embeddings"]
        if rope["rope_type"] == "longrope":
            ratio = config["max_position_embeddings"] / config["original_max_position_embeddings"]
            factor = math.sqrt(1 + math.log(ratio) / math.log(config["original_max_position_embeddings"]))
            found["rope__scaling__attn_factor"] = factor
    if kind in ("gemma2", "gemma3_text"):
        found["attention__sliding_window"] = config["sliding_window"]
        for key in ("attn_logit_softcapping", "final_logit_softcapping"):
            if config[key] is not None:
                found[key] = float(config[key])
    if kind == "gemma3_text":
        found["rope__freq_base_swa"] = float(config["rope_parameters"]["sliding_attention"]["rope_theta"])
        found["attention__sliding_window_pattern"] = config["_sliding_window_pattern"]
    if kind == "qwen3_moe":
        found["expert_count"] = config.get("num_local_experts") or config["num_experts"]
        found["expert_used_count"] = config["num_experts_per_tok"]
        found["expert_feed_forward_length"] = config["moe_intermediate_size"]
    return found


def _tensors(raw: dict[str, Array], kind: str, config: dict[str, Any]) -> dict[str, Any]:
    names = get_tensor_name_map(ARCHITECTURES[kind], config["num_hidden_layers"])
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    found: dict[str, Any] = {}
    stacks: dict[str, dict[int, Array]] = {}
    for name, value in raw.items():
        parts = name.split(".")
        if "experts" in parts:
            at = parts.index("experts")
            stack = ".".join([*parts[: at + 1], *parts[at + 2 :]])
            stacks.setdefault(stack, {})[int(parts[at + 1])] = value
            continue
        value = np.asarray(value, np.float32)
        if kind in ("llama", "smollm3") and parts[-2] in ("q_proj", "k_proj"):
            value = interleave(value, heads if parts[-2] == "q_proj" else kv_heads)
        if kind.startswith("gemma") and name.endswith("norm.weight"):
            value = plus_one(value)
        found[_name(names, name)] = np.ascontiguousarray(value)
    for name, experts in stacks.items():
        found[_name(names, name)] = np.stack([experts[i] for i in range(len(experts))]).astype(np.float32)
    return found


def _name(names: Any, name: str) -> str:
    found = names.get_name(name, try_suffixes=(".weight", ".bias"))
    assert found is not None, name
    return found


def interleave(value: Array, heads: int) -> Array:
    """Rows i and i + half of each head become neighbours, as llama.cpp's rope of Llama models wants them."""
    halves = value.reshape(heads, 2, value.shape[0] // heads // 2, *value.shape[1:])
    return halves.swapaxes(1, 2).reshape(value.shape)


def plus_one(value: Array) -> Array:
    """Gemma's norms as llama.cpp multiplies by them."""
    return value + np.float32(1)


def _divisors(kind: str, config: dict[str, Any]) -> dict[str, Array]:
    rope = _rope(config)
    if kind == "phi3" and rope["rope_type"] == "longrope":
        sets = {which: np.asarray(rope[f"{which}_factor"], np.float32) for which in ("long", "short")}
        return {f"rope_factors_{which}.weight": divisors for which, divisors in sets.items()}
    if rope["rope_type"] != "llama3":
        return {}
    head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    original, factor = rope["original_max_position_embeddings"], rope["factor"]
    low, high = rope["low_freq_factor"], rope["high_freq_factor"]
    divisors: list[float] = []
    for i in range(0, head_dim, 2):
        wavelength = 2 * math.pi * rope["rope_theta"] ** (i / head_dim)
        if wavelength < original / high:
            divisors.append(1)
        elif wavelength > original / low:
            divisors.append(factor)
        else:
            smooth = (original / wavelength - low) / (high - low)
            divisors.append(1 / ((1 - smooth) / factor + smooth))
    return {"rope_freqs.weight": np.asarray(divisors, np.float32)}
