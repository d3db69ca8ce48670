from __future__ import annotations

from typing import Literal

from flowc.frontend.builder import Builder
from flowc.frontend.stage import Stage, attr
from flowc.ir.core.elementwise import Binary, Function
from flowc.ir.graph import Value
from flowc.ir.visibility import EVERYTHING
from flowc.stages.blocks.decoder import AttentionFacts, add
from flowc.stages.blocks.encoder import (
    Projection,
    Projections,
    encoder_attention,
    gated_parts,
    layer_norm,
    packed_rows,
    plain_mlp,
    token_mask,
)


class Dinov2Layer(Stage, name="dinov2_layer"):
    """A whole DINOv2 layer: h = x + s1 * attention(norm1(x)); h + s2 * MLP(norm2(h)) (Oquab et al. 2023)."""

    reads = ("active", "attn_mask", "attention_mask")
    weights = (
        "{prefix}.norm{1,2}.weight: [hidden], and its bias",
        "{prefix}.attention.attention.{query,key,value}.weight: [heads * head_dim, hidden], and its bias with `qkv_bias`",
        "{prefix}.attention.output.dense.weight: [hidden, heads * head_dim], and its bias",
        "{prefix}.layer_scale{1,2}.lambda1: [hidden]",
        "{prefix}.mlp.fc1.weight: [ffn, hidden] with `mlp: gelu`, and its bias",
        "{prefix}.mlp.fc2.weight: [hidden, ffn] with `mlp: gelu`, and its bias",
        "{prefix}.mlp.weights_in.weight: [2 * ffn, hidden] with `mlp: swiglu`, rows of gate, up, and its bias",
        "{prefix}.mlp.weights_out.weight: [hidden, ffn] with `mlp: swiglu`, and its bias",
    )
    reference = "Dinov2Layer, Dinov2WithRegistersLayer"
    example = "dinov2_layer: {prefix: encoder.layer.0, heads: 4, head_dim: 16, ffn: 128, eps: 1e-6}"
    prefix: str = attr(doc="Name in front of the layer's weights.", main=True)
    heads: int = attr(doc="Attention heads.", symbol="heads", gt=0)
    head_dim: int = attr(doc="Channels of a head.", symbol="head_dim", gt=0)
    eps: float = attr(doc="Epsilon of both norms.", symbol="norm_eps", ge=0)
    ffn: int | None = attr(doc="Width of the MLP.", symbol="ffn", gt=0)
    mlp: Literal["gelu", "swiglu"] = attr(doc="Which MLP.", default="gelu")
    activation: Function = attr(doc="Function of the plain MLP.", default="gelu")
    qkv_bias: bool = attr(doc="Whether q, k and v have biases.", default=True)

    def expand(self, b: Builder, x: Value) -> Value:
        p = self.prefix
        h = layer_norm(b, x, f"{p}.norm1.weight", self.eps)
        q, k, v = (Projection(f"{p}.attention.attention.{name}.weight") for name in ("query", "key", "value"))
        names = Projections(q, k, v, f"{p}.attention.output.dense.weight", self.qkv_bias)
        facts = AttentionFacts(self.heads, self.heads, self.head_dim, visibility=EVERYTHING, rope=None)
        x = add(b, x, self._scaled(b, encoder_attention(b, h, names, facts, token_mask(b, x)), 1))
        h = layer_norm(b, x, f"{p}.norm2.weight", self.eps)
        return add(b, x, self._scaled(b, self._mlp(b, h), 2))

    def _scaled(self, b: Builder, x: Value, number: int) -> Value:
        factors = b.weight(f"{self.prefix}.layer_scale{number}.lambda1", x.shape[-1])
        return b.op(Binary("mul"), x, factors, name=f"layer_scale{number}")

    def _mlp(self, b: Builder, h: Value) -> Value:
        p = f"{self.prefix}.mlp"
        if self.mlp == "gelu":
            return plain_mlp(b, h, f"{p}.fc1.weight", f"{p}.fc2.weight", self.activation, self.ffn)
        gate, up = packed_rows(f"{p}.weights_in.weight", 2)
        return gated_parts(b, h, gate, up, f"{p}.weights_out.weight", "silu", self.ffn, bias=True, down_bias=True)
