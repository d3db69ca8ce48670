from __future__ import annotations

import pytest

from tests.parity.negative import assert_seen

MISTAKES = [
    ("qwen3_moe_norm", "renormalise: true", "renormalise: false", "the chosen weights left as they are"),
    ("qwen3_moe_sparse", "renormalise: false", "renormalise: true", "the chosen weights brought to one"),
    ("qwen3_moe_norm", r"experts_per_token: \d+", "experts_per_token: 1", "one expert a token"),
    ("qwen3_moe_sparse", r"experts_per_token: \d+", "experts_per_token: 6", "every expert"),
    ("qwen3_moe_norm", "activation: silu", "activation: gelu", "another activation"),
]


@pytest.mark.golden
@pytest.mark.parametrize("target", ["ort-cpu", "portable"])
@pytest.mark.parametrize(("case", "pattern", "replacement", "what"), MISTAKES, ids=[m[3] for m in MISTAKES])
def test_parity_sees(
    case: str, pattern: str, replacement: str, what: str, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_seen(case, pattern, replacement, monkeypatch, target)
