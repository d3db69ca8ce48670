"""Mistakes to plant in Phi-3."""

from __future__ import annotations

TARGETS = ("ort-cpu",)

# case, what of its spec is replaced, by what, what that means
MISTAKES = [
    ("phi3_partial_long", r"window: \d+", "window: 8", "a window one too short"),
    ("phi3_partial_long", r"attention_factor: [\d.]+", "attention_factor: 1.0", "longrope's factor dropped"),
    ("phi3_partial_long", "original_length: 12", "original_length: 90", "the short factors for the long ones"),
    ("phi3_partial_short", r"original_length: \d+", "original_length: 2", "the long factors for the short ones"),
    ("phi3_full_rotary", "activation: silu", "activation: gelu", "another activation"),
    ("phi3_full_rotary", r"theta: [\d.]+", "theta: 20000.0", "another theta"),
]
