"""A model in small stages and its whole-layer twin compile to the same graph, byte for byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowc.ir.canonical import difference
from tests.passes.making import compile_text
from tests.passes.test_twins import stripped
from tests.stages.test_composed_encoders import BERT, BERT_COMPOSED, flow_of
from tests.stages.test_composed_encoders import HEAD as TEXT_HEAD

IMAGE_HEAD = """
flowc: 1
name: small
model: {hidden: 40, layers: 2, heads: 5, head_dim: 8, ffn: 48, norm_eps: 1e-6, channels: 3, patch: [7, 7]}
weights: {random: 7}
inputs: {pixel_values: 'float32[batch_size, $channels, 21, 21]'}
flow:
  - patch_embed: {weight: embeddings.patch_embeddings.projection.weight}
  - prepend_tokens: {weight: embeddings.cls_token}
  - repeat:
      count: $layers
      body:
"""
IMAGE_TAIL = """
  - layer_norm: layernorm.weight
  - cls_token_pool: {output: pooler_output}
"""
DINOV2 = """
        - dinov2_layer: {prefix: 'encoder.layer.{i}', mlp: MLP}
"""
DINOV2_COMPOSED = """
        - residual_save
        - layer_norm: 'encoder.layer.{i}.norm1.weight'
        - vit_self_attn:
            q: 'encoder.layer.{i}.attention.attention.query.weight'
            k: 'encoder.layer.{i}.attention.attention.key.weight'
            v: 'encoder.layer.{i}.attention.attention.value.weight'
            out: 'encoder.layer.{i}.attention.output.dense.weight'
        - layer_scale: 'encoder.layer.{i}.layer_scale1.lambda1'
        - residual_add
        - residual_save
        - layer_norm: 'encoder.layer.{i}.norm2.weight'
        - MLP
        - layer_scale: 'encoder.layer.{i}.layer_scale2.lambda1'
        - residual_add
"""
GELU = "gelu_ffn: {intermediate: 'encoder.layer.{i}.mlp.fc1.weight', output: 'encoder.layer.{i}.mlp.fc2.weight'}"
SWIGLU = (
    "packed_swiglu: {input: 'encoder.layer.{i}.mlp.weights_in.weight', "
    "output: 'encoder.layer.{i}.mlp.weights_out.weight'}"
)


def image(body: str, mlp: str) -> str:
    return body.replace("MLP", mlp).strip("\n") + IMAGE_TAIL


TWINS = {
    "bert": (TEXT_HEAD, flow_of(BERT), flow_of(BERT_COMPOSED)),
    "dinov2": (IMAGE_HEAD, image(DINOV2, "gelu"), image(DINOV2_COMPOSED, GELU)),
    "dinov2-swiglu": (IMAGE_HEAD, image(DINOV2, "swiglu"), image(DINOV2_COMPOSED, SWIGLU)),
}


@pytest.mark.parametrize("family", TWINS)
def test_twins_compile_to_the_same_graph(tmp_path: Path, family: str) -> None:
    head, whole, small = TWINS[family]
    a, b = (
        compile_text(tmp_path, text, head=head, name=f"twin{i}").graphs["encode"]
        for i, text in enumerate((whole, small))
    )
    assert difference(a, b) == []
    for on in ("ort-cpu", "portable"):
        assert stripped(a, on) == stripped(b, on)


def test_a_twin_with_another_mlp_differs(tmp_path: Path) -> None:
    texts = (image(DINOV2, "gelu"), image(DINOV2_COMPOSED, SWIGLU))
    a, b = (
        compile_text(tmp_path, text, head=IMAGE_HEAD, name=f"twin{i}").graphs["encode"] for i, text in enumerate(texts)
    )
    assert difference(a, b)
