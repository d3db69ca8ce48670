"""What the configurations of all decoder families have in common."""

from __future__ import annotations

from typing import Any

from flowc.importers.config import Config
from flowc.importers.family import Shapes

ACTIVATIONS = {
    "silu": "silu", "swish": "silu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh", "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh", "relu": "relu", "quick_gelu": "quick_gelu", "tanh": "tanh",
}  # fmt: skip
"""HuggingFace's names of activations (`ACT2FN`) and ours."""


def decoder_symbols(config: Config, *, eps: float = 1e-6, kv_heads: int | None = None) -> dict[str, Any]:
    """The `model:` block of a decoder: sizes, epsilon, context and special tokens."""
    hidden, heads = config.int("hidden_size"), config.int("num_attention_heads")
    symbols: dict[str, Any] = {
        "hidden": hidden,
        "layers": config.int("num_hidden_layers"),
        "heads": heads,
        "kv_heads": config.int("num_key_value_heads", kv_heads if kv_heads is not None else heads),
        "head_dim": config.int("head_dim", hidden // heads),
        "ffn": config.int("intermediate_size"),
        "vocab": config.int("vocab_size"),
        "norm_eps": config.float("rms_norm_eps", eps),
        "context_length": config.int("max_position_embeddings"),
    }
    special_tokens(config, symbols)
    return symbols


def special_tokens(config: Config, symbols: dict[str, Any]) -> None:
    """Adds bos, eos and pad where the configuration names them."""
    for name in ("bos", "eos", "pad"):
        value = config.get(f"{name}_token_id")
        if value is not None:
            symbols[name] = value


def head(config: Config, shapes: Shapes, *, tied: bool, allow_unused: list[str]) -> dict[str, Any]:
    """The `lm_head` stage: tied as the configuration says (`tied` where it says nothing)."""
    if config.bool("tie_word_embeddings", tied):
        if "lm_head.weight" in shapes:
            allow_unused.append("lm_head.weight")
        return {"lm_head": {"tied": True}}
    return {"lm_head": {"weight": "lm_head.weight"}}


def spare_tensors(shapes: Shapes) -> list[str]:
    """Buffers of old checkpoints that the configuration already says."""
    patterns = ("*.rotary_emb.inv_freq", "*.attn.masked_bias", "*.attn.bias")
    return [p for p in patterns if any(n.endswith(p[1:]) for n in shapes)]
