"""Mistakes to plant in gated-delta-net hybrids (Qwen3-Next, Qwen3.5)."""

from __future__ import annotations

TARGETS = ("ort-cpu",)

# case, what of its spec is replaced, by what, what that means
MISTAKES = [
    ("qwen3_next_dense", "norm_eps: 0.001", "norm_eps: 1.0e-06", "another epsilon of the norms"),
    ("qwen3_next_dense", r"rotary_dim: \d+", "rotary_dim: 12", "the whole head turned"),
    ("qwen3_next_moe", "gemma_rms_norm: {weight: 'model.layers", "rms_norm: {weight: 'model.layers", "gain without 1"),
    ("qwen3_next_moe", r", shared_ffn: \d+", "", "no shared expert"),
    ("qwen3_5_text", "qk_norm_eps: 1.0e-06", "qk_norm_eps: 0.1", "another epsilon of the lengths of q and k"),
    ("qwen3_5_text", "-06, activation: silu", "-06, activation: gelu", "another function behind the convolution"),
    ("qwen3_5_text_b", "attention_bias: true", "attention_bias: false", "attention without its biases"),
    ("qwen3_5_moe_text", "renormalise: true", "renormalise: false", "the experts' weights left as they are"),
]
