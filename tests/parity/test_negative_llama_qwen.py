from __future__ import annotations

from typing import Any

import pytest

from flowc.frontend.builder import Builder
from flowc.ir.graph import Value
from flowc.ir.types import BATCH, TOTAL, TensorType
from flowc.stages.blocks import decoder as blocks
from flowc.stages.blocks.decoder import AttentionFacts
from tests.parity.negative import assert_seen, assert_spec_seen

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


@pytest.mark.golden
@pytest.mark.parametrize(("case", "pattern", "replacement", "what"), MISTAKES, ids=[m[3] for m in MISTAKES])
def test_parity_sees(case: str, pattern: str, replacement: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_seen(case, pattern, replacement, monkeypatch, "ort-cpu")


@pytest.mark.golden
def test_parity_sees_a_mask_that_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    def unmasked(self: Builder, *_: Any) -> None:
        self.input("attention_mask", TensorType("int64", (BATCH, TOTAL)))

    monkeypatch.setattr(Builder, "attention_mask", unmasked)
    assert_spec_seen("qwen3_tied", lambda text: text, monkeypatch, "ort-cpu")


@pytest.mark.golden
def test_parity_sees_keys_that_are_cached_before_their_rope(monkeypatch: pytest.MonkeyPatch) -> None:
    def unrotated(f: Builder, x: Value, heads: int, facts: AttentionFacts, name: str) -> Value:
        return x if name == "k_rope" else blocks_rotate(f, x, heads, facts, name)

    blocks_rotate = blocks.rotate
    monkeypatch.setattr(blocks, "rotate", unrotated)
    assert_spec_seen("llama_mha", lambda text: text, monkeypatch, "portable")
