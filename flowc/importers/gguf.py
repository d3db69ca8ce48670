"""GGUF metadata in the terms of a HuggingFace configuration, so that the importer of the family reads both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from flowc.errors import Diagnostics, SpecError, nearest
from flowc.importers.config import Config
from flowc.importers.decoders import ROPE_TENSORS

if TYPE_CHECKING:
    from flowc.weights.gguf.checkpoint import GgufCheckpoint

_FIELDS = {
    "block_count": "num_hidden_layers",
    "context_length": "max_position_embeddings",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.head_count_kv": "num_key_value_heads",
    "attention.key_length": "head_dim",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
    "rope.freq_base": "rope_theta",
    "rope.freq_base_swa": "rope_local_base_freq",
    "vocab_size": "vocab_size",
    "expert_count": "num_experts",
    "expert_used_count": "num_experts_per_tok",
    "expert_feed_forward_length": "moe_intermediate_size",
    "expert_weights_norm": "norm_topk_prob",
    "attn_logit_softcapping": "attn_logit_softcapping",
    "final_logit_softcapping": "final_logit_softcapping",
}
"""Metadata keys, without the architecture in front, and the configuration fields that they are."""

_WINDOWS = ("attention.sliding_window", "attention.sliding_window_pattern")
_ROPE = (
    "rope.dimension_count", "rope.scaling.type", "rope.scaling.factor", "rope.scaling.original_context_length",
    "rope.scaling.attn_factor", "rope.scaling.finetuned", "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow",
)  # fmt: skip
_ONLY = {
    "expert_weights_scale": 1.0, "expert_gating_func": 1, "expert_group_count": 1, "attention.causal": True,
    "tensor_data_layout": "Meta AI original pth",
}  # fmt: skip
"""Keys that change the numbers unless they say what the architecture does anyway (gating 1 is the softmax)."""

MODEL_TYPES = {"llama": "llama", "qwen2": "qwen2", "qwen3": "qwen3", "gemma": "gemma", "gemma2": "gemma2",
               "gemma3": "gemma3_text", "phi3": "phi3", "qwen3moe": "qwen3_moe", "smollm3": "smollm3"}  # fmt: skip
"""GGUF architectures and the HuggingFace model types that they are."""

_LARGEST_GEMMA = {"gemma2": 46, "gemma3": 62}
"""Layers of the 27B models: llama.cpp scales their scores by hidden / heads, all others' by the width of a head."""


def config_of(checkpoint: GgufCheckpoint) -> Config:
    """The configuration that a GGUF file states; SpecError for metadata that flowc does not understand."""
    architecture, metadata = checkpoint.architecture, checkpoint.metadata
    if architecture not in MODEL_TYPES:
        raise SpecError.of(
            "unknown-model-type", f"flowc has no importer for the GGUF architecture '{architecture}'",
            hint=nearest(architecture, MODEL_TYPES) or f"it imports {', '.join(MODEL_TYPES)}",
        )  # fmt: skip
    prefix = f"{architecture}."
    reader = _Reader(
        checkpoint, prefix, {k.removeprefix(prefix): v for k, v in metadata.items() if k.startswith(prefix)}
    )
    data: dict[str, Any] = {"model_type": MODEL_TYPES[architecture], **reader.sizes(), **reader.family(architecture)}
    scaling = reader.scaling(data)
    if scaling:
        data["rope_scaling"] = scaling
    _tokens(metadata, data)
    reader.problems.raise_if_any()
    return Config(data, f"the GGUF metadata of {checkpoint.files()[0].name}")


class _Reader:
    """Reads an architecture's own metadata; `problems` collects what cannot be reproduced."""

    def __init__(self, checkpoint: GgufCheckpoint, prefix: str, own: Mapping[str, Any]) -> None:
        self.checkpoint = checkpoint
        self.prefix = prefix
        self.own = own
        self.shapes = {n: t.shape for n, t in checkpoint.tensors().items()}
        self.problems = Diagnostics()
        for key, value in own.items():
            if key in _ONLY:
                if value != _ONLY[key]:
                    self.refuse(key, f"is {value!r}, which flowc does not reproduce", "unsupported-config")
            elif key not in (*_FIELDS, *_WINDOWS, *_ROPE, "attention.value_length"):
                self.refuse(key, "is not known and might change the numbers", "unknown-config")

    def refuse(self, key: str, why: str, code: str = "unsupported-config") -> None:
        """Collect a refusal of a metadata key."""
        self.problems.error(code, f"GGUF metadata '{self.prefix}{key}' {why}")

    def sizes(self) -> dict[str, Any]:
        """What the fields and the tensors' names and shapes say."""
        data = {field: _shortest(self.own[key]) for key, field in _FIELDS.items() if key in self.own}
        data.setdefault("vocab_size", self.shapes["model.embed_tokens.weight"][0])
        data["tie_word_embeddings"] = "lm_head.weight" not in self.shapes
        data.setdefault("rope_theta", 10000.0)
        if "rms_norm_eps" not in data:
            self.refuse("attention.layer_norm_rms_epsilon", "is missing, and llama.cpp knows none to take for it")
        if "num_attention_heads" in data and "hidden_size" in data:
            data.setdefault("head_dim", data["hidden_size"] // data["num_attention_heads"])
            data.setdefault("num_key_value_heads", data["num_attention_heads"])
        if self.own.get("attention.value_length", data.get("head_dim")) != data.get("head_dim"):
            self.refuse("attention.value_length", "differs from the keys' length")
        for key in ("attention.head_count", "attention.head_count_kv", "feed_forward_length"):
            if isinstance(self.own.get(key), list):
                self.refuse(key, "is given layer by layer")
        return data

    def family(self, architecture: str) -> dict[str, Any]:
        """What an architecture implies, or its tensors show."""
        data = self._windows()
        if architecture in ("llama", "qwen3", "qwen3moe", "smollm3", "gemma", "gemma2", "gemma3"):
            data["attention_bias"] = "model.layers.0.self_attn.q_proj.bias" in self.shapes
        if architecture in ("llama", "smollm3"):
            data["mlp_bias"] = "model.layers.0.mlp.up_proj.bias" in self.shapes
        if architecture == "qwen3moe":
            data["norm_topk_prob"] = bool(self.own.get("expert_weights_norm", True))
        if architecture in _LARGEST_GEMMA:
            width, heads = self.own.get("embedding_length", 0), self.own.get("attention.head_count", 1)
            large = self.own.get("block_count") == _LARGEST_GEMMA[architecture]
            data["query_pre_attn_scalar"] = width // heads if large else self.own.get("attention.key_length", 256)
        return data

    def _windows(self) -> dict[str, Any]:
        window, pattern = (self.own.get(key) for key in _WINDOWS)
        data: dict[str, Any] = {"sliding_window": window} if window else {}
        if self.prefix in ("qwen2.", "qwen3.", "qwen3moe.", "smollm3.", "llama.") and window:
            self.refuse(_WINDOWS[0], "is not a part of this architecture")
        if self.prefix == "gemma3." and not window:
            self.refuse(_WINDOWS[0], "is missing or 0, so which layers are local is not known")
        if self.prefix == "phi3.":
            data.setdefault("sliding_window", None)
        if isinstance(pattern, list):
            data["layer_types"] = ["sliding_attention" if p else "full_attention" for p in cast("list[Any]", pattern)]
        elif pattern is not None:
            data["sliding_window_pattern"] = pattern
        return data

    def scaling(self, data: dict[str, Any]) -> dict[str, Any]:
        """The rope's scaling in HuggingFace's terms; sets `partial_rotary_factor` where only a part of a head turns."""
        own, width = self.own, data.get("head_dim")
        turning = own.get("rope.dimension_count", width)
        if turning != width and self.prefix == "phi3." and width:
            data["partial_rotary_factor"] = turning / width
        elif turning != width:
            self.refuse("rope.dimension_count", f"is {turning}, where heads have {width} channels")
        found: dict[str, Any] = {"factor": _shortest(own.get("rope.scaling.factor")) or None}  # 0 is none to llama.cpp
        found["rope_type"] = own.get("rope.scaling.type", "linear" if found["factor"] else "none")
        original = own.get("rope.scaling.original_context_length")
        for key in ("beta_fast", "beta_slow"):
            found[key] = _shortest(own.get(f"rope.scaling.yarn_{key}"))
        short, long = (self._divisors(name) for name in ROPE_TENSORS[1:])
        every, factor = self._divisors(ROPE_TENSORS[0]), _shortest(own.get("rope.scaling.attn_factor"))
        if short is not None and long is not None:
            divided = {"short_factor": short, "long_factor": long, "attention_factor": factor}
            found = {**found, "rope_type": "longrope", "factor": None, **divided}
        elif every is not None:
            if found["rope_type"] != "none":
                self.refuse("rope.scaling.type", f"stands beside the tensor '{ROPE_TENSORS[0]}'")
            # Divisors for every length: both sets of a longrope that never has to choose.
            original, divided = own.get("context_length"), {"short_factor": every, "long_factor": every}
            found = {**found, "rope_type": "longrope", "factor": None, **divided, "attention_factor": 1.0}
        elif factor not in (None, 1.0):
            self.refuse("rope.scaling.attn_factor", f"is {factor}, which only a longrope's divisors go with")
        if found["rope_type"] == "none":
            return {}
        if original is not None and self.prefix == "phi3.":
            data["original_max_position_embeddings"] = original
        if original is not None and found["rope_type"] != "linear":
            found["original_max_position_embeddings"] = original
        return {key: value for key, value in found.items() if value is not None}

    def _divisors(self, name: str) -> list[float] | None:
        if name not in self.shapes:
            return None
        return [float(str(np.float32(v))) for v in self.checkpoint.read(name)]


def _shortest(value: Any) -> Any:
    """A float as the shortest decimal of the float32 that the file stores: 1e-05, not 9.999999747378752e-06."""
    return float(str(np.float32(value))) if isinstance(value, float) else value


def _tokens(metadata: Mapping[str, Any], data: dict[str, Any]) -> None:
    names = {"bos": "bos_token_id", "eos": "eos_token_id", "padding": "pad_token_id"}
    for ours, field in names.items():
        value = metadata.get(f"tokenizer.ggml.{ours}_token_id")
        if value is not None:
            data[field] = value
