"""Mistakes to plant in mixtures of experts."""

from __future__ import annotations

TARGETS = ("ort-cpu", "portable")

# case, what of its spec is replaced, by what, what that means
MISTAKES = [
    ("qwen3_moe_norm", "renormalise: true", "renormalise: false", "the chosen weights left as they are"),
    ("qwen3_moe_sparse", "renormalise: false", "renormalise: true", "the chosen weights brought to one"),
    ("qwen3_moe_norm", r"experts_per_token: \d+", "experts_per_token: 1", "one expert a token"),
    ("qwen3_moe_sparse", r"experts_per_token: \d+", "experts_per_token: 6", "every expert"),
    ("qwen3_moe_norm", "activation: silu", "activation: gelu", "another activation"),
]
