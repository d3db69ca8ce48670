from __future__ import annotations

import pytest

from flowc.frontend.builder import Builder
from flowc.ir.graph import Value
from flowc.stages.gated_attention import GatedAttention
from flowc.stages.recurrent import GatedDeltaNet
from tests.oracle_io import Oracle, case_folders
from tests.parity.harness import Check, check_case
from tests.parity.negative import assert_seen

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


@pytest.mark.golden
@pytest.mark.parametrize(("case", "pattern", "replacement", "what"), MISTAKES, ids=[m[3] for m in MISTAKES])
def test_parity_sees(case: str, pattern: str, replacement: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_seen(case, pattern, replacement, monkeypatch, "ort-cpu")


def off(case: str) -> list[Check]:
    folder = case_folders().get(case)
    if folder is None:
        pytest.skip(f"oracle case {case} is not at hand")
    return [c for c in check_case(Oracle(folder), "ort-cpu") if not c.good]


@pytest.mark.golden
def test_parity_sees_query_and_gate_confused(monkeypatch: pytest.MonkeyPatch) -> None:
    right = GatedAttention._query_and_gate  # pyright: ignore[reportPrivateUsage]

    def confused(self: GatedAttention, f: Builder, x: Value) -> list[Value]:
        return right(self, f, x)[::-1]

    monkeypatch.setattr(GatedAttention, "_query_and_gate", confused)
    assert any("prefill logits" in c.what for c in off("qwen3_5_text_b"))


@pytest.mark.golden
def test_parity_sees_groups_of_the_projections_confused(monkeypatch: pytest.MonkeyPatch) -> None:
    right = GatedDeltaNet._projections  # pyright: ignore[reportPrivateUsage]

    def confused(self: GatedDeltaNet, f: Builder, x: Value) -> list[Value]:
        mixed, z, b, a = right(self, f, x)
        return [mixed, z, a, b]

    monkeypatch.setattr(GatedDeltaNet, "_projections", confused)
    assert any("prefill logits" in c.what for c in off("qwen3_next_moe"))


@pytest.mark.golden
def test_parity_sees_padding_in_a_state(monkeypatch: pytest.MonkeyPatch) -> None:
    right = Builder.attention_mask

    def leaky(self: Builder) -> Value | None:
        return None if self.reporter.site.origin.kind == "gated_delta_net" else right(self)

    monkeypatch.setattr(Builder, "attention_mask", leaky)
    seen = {c.what for c in off("qwen3_5_text_b")}
    for what in ("b2 prefill logits", "right-padded row 1 call 1", "left-padded row 1 present.0.recurrent_state",
                 "ragged-padded row 1 present.1.recurrent_state"):  # fmt: skip
        assert what in seen
