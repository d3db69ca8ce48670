from __future__ import annotations

from flowc.frontend.builder import Builder
from flowc.frontend.stage import Stage, attr
from flowc.ir.core.elementwise import Function, Unary
from flowc.ir.graph import Value
from flowc.ir.visibility import Visibility
from flowc.stages.blocks.decoder import AttentionFacts
from flowc.stages.blocks.encoder import (
    Projection,
    Projections,
    encoder_attention,
    layer_norm,
    packed_projections,
    plain_mlp,
    token_mask,
)
from flowc.stages.encoder_layers import score_bias


class LayerNorm(Stage, name="layer_norm"):
    """(x - mean) / sqrt(variance + eps) * weight + bias over the last axis (Ba et al. 2016)."""

    weights = ("{weight}: [hidden], and its bias with `bias`",)
    reference = "torch.nn.LayerNorm"
    example = "layer_norm: {weight: embeddings.LayerNorm.weight, eps: 1e-12}"
    weight: str = attr(doc="Name of the gain; a file that has `.gamma` and `.beta` instead is understood.", main=True)
    eps: float = attr(doc="Added to the variance.", symbol="norm_eps", ge=0)
    bias: bool = attr(doc="Whether the sibling `.bias` is added.", default=True)

    def expand(self, b: Builder, x: Value) -> Value:
        return layer_norm(b, x, self.weight, self.eps, bias=self.bias, at="weight")


class Activation(Stage, name="activation"):
    """A function applied to every element."""

    reference = "transformers.activations.ACT2FN"
    example = "activation: gelu"
    function: Function = attr(doc="The function.", main=True)

    def expand(self, b: Builder, x: Value) -> Value:
        return b.op(Unary(self.function), x)


class GeluFfn(Stage, name="gelu_ffn"):
    """W2 gelu(W1 x + b1) + b2, without residual and norm. `gelu` is the erf form, `gelu_tanh` the approximation."""

    weights = (
        "{intermediate}: [ffn, hidden], and its bias with `bias`",
        "{output}: [hidden, ffn], and its bias with `bias`",
    )
    reference = "BertIntermediate and the dense of BertOutput, Dinov2MLP"
    example = "gelu_ffn: {intermediate: encoder.layer.0.intermediate.dense.weight, output: encoder.layer.0.output.dense.weight, ffn: 128}"
    intermediate: str = attr(doc="Name of W1.")
    output: str = attr(doc="Name of W2.")
    ffn: int | None = attr(doc="Rows of W1.", symbol="ffn", gt=0)
    activation: Function = attr(doc="The function between.", default="gelu")
    bias: bool = attr(doc="Whether both have biases.", default=True)

    def expand(self, b: Builder, x: Value) -> Value:
        return plain_mlp(b, x, self.intermediate, self.output, self.activation, self.ffn, bias=self.bias)


class EncoderSelfAttn(Stage, name="encoder_self_attn"):
    """Attention of every token to every token that is not padding, with its output projection; no residual, no norm.

    Either `q`, `k` and `v`, or `qkv`, one weight whose rows are those of the three.
    """

    reads = ("active", "rope", "positions", "attn_mask", "attention_mask", "bias")
    weights = (
        "{q}, {k}, {v}: [heads * head_dim, hidden], and its bias with `projection_bias`",
        "{qkv}: [3 * heads * head_dim, hidden], and its bias with `projection_bias`",
        "{out}: [hidden, heads * head_dim], and its bias with `projection_bias`",
    )
    reference = "BertSelfAttention and the dense of BertSelfOutput"
    example = (
        "encoder_self_attn: {qkv: layers.0.attn.Wqkv.weight, out: layers.0.attn.Wo.weight, heads: 4, head_dim: 16}"
    )
    q: str | None = attr(doc="Name of the query weight.", default=None)
    k: str | None = attr(doc="Name of the key weight.", default=None)
    v: str | None = attr(doc="Name of the value weight.", default=None)
    qkv: str | None = attr(doc="Name of a weight that holds all three.", default=None)
    out: str = attr(doc="Name of the output projection.")
    heads: int = attr(doc="Attention heads.", symbol="heads", gt=0)
    head_dim: int = attr(doc="Channels of a head.", symbol="head_dim", gt=0)
    scale: float | None = attr(doc="Factor of the scores; 1 / sqrt(head_dim) by default.", default=None, gt=0)
    projection_bias: bool = attr(doc="Whether all projections have biases.", default=True)
    bias: str | None = attr(doc="Name of the relative bias of the scores; null for none.", default=None)
    rope: str | None = attr(doc="Name of the rope; null for none.", default=None)
    reach: int | None = attr(
        doc="How far a token sees on each side, in tokens; 0 is itself alone; all by default.", default=None, ge=0
    )

    def expand(self, b: Builder, x: Value) -> Value:
        own, bias = (self.q, self.k, self.v), self.projection_bias
        if self.qkv is not None and own == (None, None, None):
            projections = packed_projections(self.qkv, self.out, bias=bias, out_bias=bias)
        elif self.qkv is None and self.q and self.k and self.v:
            projections = Projections(Projection(self.q), Projection(self.k), Projection(self.v), self.out, bias, bias)
        else:
            raise b.fail("missing-field", "stage 'encoder_self_attn' needs `q`, `k` and `v`, or `qkv` alone")
        seen = Visibility.around(self.reach)
        facts = AttentionFacts(self.heads, self.heads, self.head_dim, self.scale, visibility=seen, rope=self.rope)
        return encoder_attention(b, x, projections, facts, token_mask(b, x), score_bias(b, self.bias, self.heads))
