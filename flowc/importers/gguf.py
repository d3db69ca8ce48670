"""GGUF metadata in the terms of a HuggingFace configuration, so that the importer of the family reads both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from flowc.errors import Diagnostics, SpecError, nearest
from flowc.importers.config import Config
from flowc.weights.gguf import GgufCheckpoint

_FIELDS = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "attention.sliding_window": "sliding_window",
    "rope.freq_base": "rope_theta",
    "vocab_size": "vocab_size",
    "expert_count": "num_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
"""Metadata keys, without the architecture in front, and the configuration fields that they are."""

_HANDLED = {
    "attention.value_length", "rope.dimension_count", "rope.scaling.type", "rope.scaling.factor",
    "rope.scaling.original_context_length", "rope.scaling.attn_factor", "rope.scaling.finetuned",
}  # fmt: skip

MODEL_TYPES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma": "gemma", "gemma2": "gemma2",
               "gemma3": "gemma3_text", "phi3": "phi3", "qwen3moe": "qwen3_moe", "smollm3": "smollm3"}  # fmt: skip
"""GGUF architectures and the HuggingFace model types that they are."""


def config_of(checkpoint: GgufCheckpoint) -> Config:
    """The configuration that a GGUF file states; SpecError for metadata that flowc does not understand."""
    architecture, metadata = checkpoint.architecture, checkpoint.metadata
    if architecture not in MODEL_TYPES:
        raise SpecError.of(
            "unknown-model-type", f"flowc has no importer for the GGUF architecture '{architecture}'",
            hint=nearest(architecture, MODEL_TYPES) or f"it imports {', '.join(MODEL_TYPES)}",
        )  # fmt: skip
    prefix = f"{architecture}."
    own = {k.removeprefix(prefix): v for k, v in metadata.items() if k.startswith(prefix)}
    problems = Diagnostics()
    for key in own:
        if key not in _FIELDS and key not in _HANDLED:
            problems.error("unknown-config", f"GGUF metadata '{prefix}{key}' is not known and might change the numbers")
    data: dict[str, Any] = {"model_type": MODEL_TYPES[architecture]}
    data.update({field: _shortest(own[key]) for key, field in _FIELDS.items() if key in own})
    shapes = {n: t.shape for n, t in checkpoint.tensors().items()}
    data.setdefault("vocab_size", shapes["model.embed_tokens.weight"][0])
    data["tie_word_embeddings"] = "lm_head.weight" not in shapes
    if own.get("attention.value_length", data.get("head_dim")) != data.get("head_dim"):
        problems.error(
            "unsupported-config", f"GGUF metadata '{prefix}attention.value_length' differs from the keys' length"
        )
    scaling = _scaling(own)
    if scaling:
        data["rope_scaling"] = scaling
    _tokens(metadata, data)
    problems.raise_if_any()
    return Config(data, f"the GGUF metadata of {checkpoint.files()[0].name}")


def _shortest(value: Any) -> Any:
    """A float as the shortest decimal of the float32 that the file stores: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value))) if isinstance(value, float) else value


def _scaling(own: Mapping[str, Any]) -> dict[str, Any]:
    kind = own.get("rope.scaling.type", "none")
    if kind == "none":
        return {}
    found = {"rope_type": kind, "factor": _shortest(own.get("rope.scaling.factor"))}
    if "rope.scaling.original_context_length" in own:
        found["original_max_position_embeddings"] = own["rope.scaling.original_context_length"]
    if "rope.scaling.attn_factor" in own:
        found["attention_factor"] = _shortest(own["rope.scaling.attn_factor"])
    return found


def _tokens(metadata: Mapping[str, Any], data: dict[str, Any]) -> None:
    names = {"bos": "bos_token_id", "eos": "eos_token_id", "padding": "pad_token_id"}
    for ours, field in names.items():
        value = metadata.get(f"tokenizer.ggml.{ours}_token_id")
        if value is not None:
            data[field] = value
