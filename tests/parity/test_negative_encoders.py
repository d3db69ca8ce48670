from __future__ import annotations

from typing import Any

import pytest

from flowc.frontend.builder import Builder
from flowc.ir.core.relative_bias import RelativeBias
from flowc.ir.graph import Value
from flowc.stages import encoder_layers
from flowc.stages.blocks.encoder import Projection
from tests.parity.negative import assert_seen

MISTAKES = [
    ("bert_base_like", "activation: gelu", "activation: gelu_tanh", "BERT: tanh GELU for erf"),
    ("bert_mlm_prefix", "norm_eps: 0.001", "norm_eps: 0.01", "BERT: ten times the epsilon"),
    ("bert_mlm_prefix", "activation: gelu_tanh}", "activation: relu}", "BERT: another activation"),
    ("bert_mlm_prefix", "activation: gelu_tanh,", "activation: gelu,", "BERT: another activation in the head"),
    ("bert_base_like", r"(- gather_add: .*token_type_ids\})", r"\1\n  \1", "BERT: token types added twice"),
    ("bert_base_like", "- column_positions", "- positions_from_ids: {pad: 0}", "BERT: RoBERTa's positions"),
    ("roberta_base_like", "positions_from_ids: {pad: 1}", "column_positions", "RoBERTa: BERT's positions"),
    ("roberta_base_like", "positions_from_ids: {pad: 1}", "positions_from_ids: {pad: 0}", "RoBERTa: off by one"),
    ("xlm_roberta_mlm", "activation: gelu,", "activation: gelu_tanh,", "XLM-R: tanh GELU in the head"),
    ("mpnet_mlm", ", bias: relative", "", "MPNet: no relative bias"),
    ("mpnet_mlm", "max_distance: 128", "max_distance: 64", "MPNet: half the distance"),
    ("mpnet_base_like", "positions_from_ids: {pad: 1}", "column_positions", "MPNet: BERT's positions"),
    ("distilbert_mlm", "norm_eps: 1.0e-12", "norm_eps: 1.0e-2", "DistilBERT: another epsilon"),
    ("distilbert_base_like", "column_positions", "positions_from_ids: {pad: 0}", "DistilBERT: RoBERTa's positions"),
    ("nomic_bert_text", "theta: 1000.0", "theta: 1500.0", "NomicBERT: another theta"),
    ("nomic_bert_text", "activation: silu", "activation: gelu", "NomicBERT: another gate"),
    ("nomic_bert_text", r"nomic_encoder_layer: \{", "nomic_encoder_layer: {interleaved: true, ", "NomicBERT: pairs"),
    ("nomic_bert_text_b", "norm_eps: 0.001", "norm_eps: 0.01", "NomicBERT: ten times the epsilon"),
    ("modernbert_base_like", r"reach: \[null, 3, 3", "reach: [null, 4, 4", "ModernBERT: window off by one"),
    ("modernbert_base_like", r"reach: \[null, 3, 3", "reach: [null, null, null", "ModernBERT: no window"),
    ("modernbert_base_like", r"layer_types: \[full", "layer_types: [sliding", "ModernBERT: a rope exchanged"),
    ("modernbert_base_like", r"theta: 1000\.0", "theta: 160000.0", "ModernBERT: one theta"),
    ("modernbert_base_like", "activation: gelu", "activation: gelu_tanh", "ModernBERT: tanh GELU for erf"),
    ("modernbert_mlm_bias", ", mlp_bias: true", "", "ModernBERT: MLP biases left out"),
    ("modernbert_mlm_bias", ", norm_bias: true", "", "ModernBERT: norm biases left out"),
]  # fmt: skip


@pytest.mark.golden
@pytest.mark.parametrize("target", ["ort-cpu", "portable"])
@pytest.mark.parametrize(("case", "pattern", "replacement", "what"), MISTAKES, ids=[m[3] for m in MISTAKES])
def test_parity_sees(
    case: str, pattern: str, replacement: str, what: str, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_seen(case, pattern, replacement, monkeypatch, target)


ANY = ("description: Imported", "description: Read")


@pytest.mark.golden
@pytest.mark.parametrize("case", ["bert_base_like", "mpnet_base_like", "nomic_bert_text", "modernbert_base_like"])
def test_parity_sees_an_ignored_mask(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(f: Builder, _: Value) -> Value | None:
        f.attention_mask()
        return None

    monkeypatch.setattr(encoder_layers, "token_mask", nothing)
    assert_seen(case, *ANY, monkeypatch, "ort-cpu")


@pytest.mark.golden
def test_parity_sees_swapped_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Buckets of keys ahead and behind exchanged."""
    bucket = RelativeBias.bucket
    monkeypatch.setattr(RelativeBias, "bucket", lambda self, distance: bucket(self, -distance))  # pyright: ignore
    assert_seen("mpnet_base_like", *ANY, monkeypatch, "ort-cpu")


@pytest.mark.golden
@pytest.mark.parametrize("case", ["nomic_bert_text", "modernbert_base_like"])
def test_parity_sees_exchanged_halves(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The activation on the other half of the gated MLP."""
    whole = encoder_layers.gated_parts

    def exchanged(f: Builder, x: Value, gate: Projection, up: Projection, *rest: Any, **more: Any) -> Value:
        return whole(f, x, up, gate, *rest, **more)

    monkeypatch.setattr(encoder_layers, "gated_parts", exchanged)
    assert_seen(case, *ANY, monkeypatch, "ort-cpu")
