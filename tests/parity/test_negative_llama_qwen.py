from __future__ import annotations

import pytest

from tests.parity.negative import assert_seen

MISTAKES = [
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
