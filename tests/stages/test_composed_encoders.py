"""Layers spelt out in small stages expand into the same operators as whole-layer kinds; masks of ones fold away."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flowc.build.compiled import Compiled
from flowc.ir.core.attention import Attention
from flowc.ir.core.token_positions import AllOnes
from flowc.ir.graph import Graph
from flowc.ir.visibility import Visibility
from tests.passes.making import Array, compile_text, count, run, run_onnx

HEAD = """
flowc: 1
name: small
kind: encoder
model: {hidden: 48, layers: 2, heads: 4, head_dim: 12, ffn: 40, vocab: 61, norm_eps: 1e-5, context_length: 64}
weights: {random: 7}
inputs: {input_ids: 'int64[batch_size, sequence_length]'}
"""
PREPARED = {
    "bias": "  - relative_bias: {weight: bias.weight, buckets: 32, max_distance: 128}\n",
    "rope": "  - rope_tables: {theta: 1000}\n",
}
FLOW = """
flow:
  - embed: embeddings.word_embeddings.weight
PREPARED
  - repeat:
      count: $layers
      body:
"""

BERT = """
        - bert_encoder_layer: {prefix: 'encoder.layer.{i}', activation: gelu_tanh, bias: relative}
"""
BERT_COMPOSED = """
        - residual_save
        - encoder_self_attn:
            q: 'encoder.layer.{i}.attention.self.query.weight'
            k: 'encoder.layer.{i}.attention.self.key.weight'
            v: 'encoder.layer.{i}.attention.self.value.weight'
            out: 'encoder.layer.{i}.attention.output.dense.weight'
            bias: relative
        - residual_add
        - layer_norm: 'encoder.layer.{i}.attention.output.LayerNorm.weight'
        - residual_save
        - gelu_ffn:
            intermediate: 'encoder.layer.{i}.intermediate.dense.weight'
            output: 'encoder.layer.{i}.output.dense.weight'
            activation: gelu_tanh
        - residual_add
        - layer_norm: 'encoder.layer.{i}.output.LayerNorm.weight'
"""
MODERN = """
        - modernbert_layer: {prefix: 'layers.{i}', reach: 3, attn_norm: true}
"""
MODERN_ATTENTION = """
        - residual_save
        - layer_norm: {weight: 'layers.{i}.attn_norm.weight', bias: false}
        - encoder_self_attn:
            qkv: 'layers.{i}.attn.Wqkv.weight'
            out: 'layers.{i}.attn.Wo.weight'
            reach: 3
            rope: rope
            projection_bias: false
        - residual_add
        - layer_norm: {weight: 'layers.{i}.mlp_norm.weight', bias: false}
        - linear: {weight: 'layers.{i}.mlp.weight', out: $ffn}
        - linear: {weight: 'layers.{i}.mlp.down.weight', out: 48}
"""


def shape_of(graph: Graph) -> list[tuple[object, ...]]:
    """Operators with their attributes and operands, whatever the names and the stages are."""
    numbers = {v: i for i, v in enumerate([*graph.inputs, *(v for n in graph.nodes for v in n.outputs)])}
    return [
        (n.op, *(None if v is None else v.weight.key if v.weight is not None else numbers[v] for v in n.inputs))
        for n in graph.nodes
    ]


def flow_of(body: str, flow: str = FLOW) -> str:
    """A flow around a layer, with the one of rope and bias that the layer uses."""
    prepared = PREPARED["bias" if "bias: relative" in body else "rope"]
    return flow.replace("PREPARED\n", prepared) + body


def expanded(folder: Path, body: str, name: str = "small") -> Compiled:
    return compile_text(folder, flow_of(body), HEAD, name)


def test_a_composed_bert_layer_is_the_whole_one(tmp_path: Path) -> None:
    whole, parts = (expanded(tmp_path, body).expanded["encode"] for body in (BERT, BERT_COMPOSED))
    assert count(whole, Attention) == 2
    assert shape_of(parts) == shape_of(whole)


def test_the_comparison_sees_another_activation(tmp_path: Path) -> None:
    whole, parts = (
        expanded(tmp_path, body).expanded["encode"]
        for body in (BERT, BERT_COMPOSED.replace("activation: gelu_tanh", "activation: gelu"))
    )
    assert shape_of(parts) != shape_of(whole)


def test_modernberts_attention_is_the_same_as_composed(tmp_path: Path) -> None:
    whole, parts = (shape_of(expanded(tmp_path, body).expanded["encode"]) for body in (MODERN, MODERN_ATTENTION))
    first = next(i for i, (op, *_) in enumerate(whole) if isinstance(op, Attention)) + 3  # projection and residual sum
    assert parts[:first] == whole[:first]
    (attention,) = [op for op, *_ in whole[:first] if isinstance(op, Attention)]
    assert attention.visibility == Visibility.around(3)


def ragged() -> tuple[Array, Array]:
    ids = np.random.default_rng(0).integers(0, 61, (3, 7))
    mask = np.ones_like(ids)
    mask[1, 4:] = mask[2, 0] = 0
    return ids, mask


@pytest.mark.parametrize("target", ["ort-cpu", "portable"])
def test_a_mask_of_ones_is_folded(tmp_path: Path, target: str) -> None:
    ones = FLOW.replace("  - repeat", "  - attn_mask\n  - repeat")
    compiled = compile_text(tmp_path, flow_of(BERT + "  - pool: {how: mean}\n", ones), HEAD, target=target)
    before, after = compiled.expanded["encode"], compiled.graphs["encode"]
    assert (count(before, AllOnes), count(after, AllOnes)) == (1, 0)
    assert len(compiled.audits["encode"]["drop_identities"].fired) >= 3  # two layers and the pooler
    assert [v.name for v in after.inputs] == ["input_ids"]
    ids, _ = ragged()
    feeds = {"input_ids": ids}
    want = run(before, feeds, compiled)
    for got in (run(after, feeds, compiled), run_onnx(after, feeds, compiled, target)):
        np.testing.assert_allclose(got["last_hidden_state"], want["last_hidden_state"], rtol=1e-5, atol=1e-5)


def test_a_mask_of_an_input_is_kept(tmp_path: Path) -> None:
    """`attn_mask` with an input means what the graph's own attention_mask means without the stage."""
    ids_type = "'int64[batch_size, sequence_length]'"
    named = HEAD.replace(f"{ids_type}}}", f"{ids_type}, mask: {ids_type}}}")
    flow = FLOW.replace("  - repeat", "  - attn_mask: mask\n  - repeat")
    compiled = compile_text(tmp_path, flow_of(BERT, flow), named, "named")
    plain = expanded(tmp_path, BERT)
    ids, mask = ragged()
    got = run_onnx(compiled.graphs["encode"], {"input_ids": ids, "mask": mask}, compiled)
    want = run(plain.expanded["encode"], {"input_ids": ids, "attention_mask": mask}, plain)
    kept = mask != 0
    np.testing.assert_allclose(got["last_hidden_state"][kept], want["last_hidden_state"][kept], rtol=1e-5, atol=1e-5)
    assert not compiled.audits["encode"]["drop_identities"].fired


def test_a_mask_of_ones_leaves_no_input(tmp_path: Path) -> None:
    """The rope's positions come from the same mask, so nothing asks for an attention_mask."""
    ones = FLOW.replace("  - repeat", "  - attn_mask\n  - repeat")
    compiled = compile_text(
        tmp_path, flow_of(MODERN.replace("attn_norm: true", "attn_norm: true, rope: rope"), ones), HEAD
    )
    after = compiled.graphs["encode"]
    assert [v.name for v in after.inputs] == ["input_ids"]
    assert count(after, AllOnes) == 0
    ids, _ = ragged()
    want = run(compiled.expanded["encode"], {"input_ids": ids}, compiled)["last_hidden_state"]
    got = run_onnx(after, {"input_ids": ids}, compiled)["last_hidden_state"]
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-5)
