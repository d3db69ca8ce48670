"""Mistakes to plant in the Llama-shaped families."""

from __future__ import annotations

TARGETS = ("ort-cpu",)

# case, what of its spec is replaced, by what, what that means
MISTAKES = [
    ("llama_mha", r"theta: [\d.]+", "theta: 20000.0", "another theta"),
    ("llama_mqa_fp16", r"norm_eps: [\d.e-]+", "norm_eps: 1.0e-6", "a small epsilon for a large one"),
    ("llama_mqa_fp16", "activation: gelu", "activation: gelu_tanh", "GELU's tanh form"),
    ("llama_gqa4_bias", r"rope_tables: \{", "rope_tables: {rotary_dim: 4, ", "a part of the head rotates"),
    ("llama3_rope_a", r"low_freq_factor: [\d.]+", "low_freq_factor: 1.5", "another bound of long wavelengths"),
    ("llama_rope_linear", r"factor: [\d.]+", "factor: 1.0", "no scaling"),
    ("llama_rope_yarn_b", "truncate: false", "truncate: true", "yarn's ramp on whole channels"),
    ("mistral_swa", "window: 5", "window: 4", "a window one too short"),
    ("mistral_swa", "window: 5", "window: 6", "a window one too long, as the seed has it"),
    ("mistral_swa", ", window: 5", "", "no window"),
    ("qwen2_bias", "norm_eps: .*", "norm_eps: 1.0e-2", "another epsilon"),
    ("qwen2_swa_yarn", r"\[null, 6, 6\]", "[6, 6, 6]", "a window on the full layer too"),
    ("qwen2_swa_yarn", r"\[null, 6, 6\]", "[null, null, 6]", "the window one layer late"),
    ("qwen2_swa_yarn", r"attention_factor: [\d.]+", "attention_factor: 1.0", "yarn's factor dropped"),
    ("qwen3_tied", "activation: silu", "activation: silu, qk_norm: false", "no q/k norm"),
    ("qwen3_gqa4_bias_yarn", "attention_bias: true", "attention_bias: true, output_bias: false", "o's bias dropped"),
    ("qwen3_gqa4_bias_yarn", r"norm_eps: [\d.e-]+", "norm_eps: 1.0e-6", "another epsilon"),
    ("smollm3_nope", r"ropes: \[.*\]", "ropes: [rope, rope, rope, rope]", "rope where there is none"),
    ("smollm3_nope_window", "windows: .*", "windows: [5, null, 5, null]", "the window on the rope layers"),
]
