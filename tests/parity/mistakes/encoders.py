"""Mistakes to plant in text encoders."""

from __future__ import annotations

TARGETS = ("ort-cpu", "portable")

# case, what of its spec is replaced, by what, what that means
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
