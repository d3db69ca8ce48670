from __future__ import annotations

from flowc.frontend.builder import Builder
from flowc.frontend.stage import Stage, attr
from flowc.ir.core.attention import Attention
from flowc.ir.core.elementwise import Binary, Function
from flowc.ir.core.vision import ExpandBatch
from flowc.ir.graph import Value
from flowc.ir.visibility import EVERYTHING
from flowc.stages.blocks.decoder import AttentionFacts, gate_times, linear
from flowc.stages.blocks.encoder import (
    Projection,
    Projections,
    encoder_attention,
    gated_parts,
    layer_norm,
    packed_projections,
    packed_rows,
    project,
    token_mask,
)


class VitSelfAttn(Stage, name="vit_self_attn"):
    """Attention of every token to every token, with its output projection: [batch, tokens, hidden] -> same.

    Either `q`, `k` and `v`, or `qkv`, one weight whose rows are those of the three. A mask that an `attn_mask` stage
    left is honoured; images need none.
    """

    reads = ("active", "rope", "positions", "attn_mask", "attention_mask")
    weights = (
        "{q}: [heads * head_dim, hidden], and its bias with `bias`",
        "{k}: [heads * head_dim, hidden], and its bias with `key_bias`, else `bias`",
        "{v}: [heads * head_dim, hidden], and its bias with `value_bias`, else `bias`",
        "{qkv}: [3 * heads * head_dim, hidden], rows of q, k, v, and its bias with `bias`",
        "{out}: [hidden, heads * head_dim], and its bias with `out_bias`",
    )
    reference = "ViTSelfAttention, Dinov2Attention, DINOv3ViTAttention, CLIPAttention"
    example = "vit_self_attn: {qkv: blocks.0.attn.qkv.weight, out: blocks.0.attn.proj.weight, heads: 4, head_dim: 16}"
    out: str = attr(doc="Name of the output projection.")
    qkv: str | None = attr(doc="Name of a weight that holds q, k and v.", default=None)
    q: str | None = attr(doc="Name of the query weight.", default=None)
    k: str | None = attr(doc="Name of the key weight.", default=None)
    v: str | None = attr(doc="Name of the value weight.", default=None)
    heads: int = attr(doc="Attention heads.", symbol="heads", gt=0)
    head_dim: int = attr(doc="Channels of a head.", symbol="head_dim", gt=0)
    bias: bool = attr(doc="Whether q, k and v have biases.", default=True)
    key_bias: bool | None = attr(doc="Whether k has a bias; as `bias` says by default.", default=None)
    value_bias: bool | None = attr(doc="Whether v has a bias; as `bias` says by default.", default=None)
    out_bias: bool = attr(doc="Whether the output projection has a bias.", default=True)
    rope: str | None = attr(doc="Name of the rope; null for none.", default=None)

    def expand(self, b: Builder, x: Value) -> Value:
        facts = AttentionFacts(self.heads, self.heads, self.head_dim, visibility=EVERYTHING, rope=self.rope)
        return encoder_attention(b, x, self._projections(b), facts, token_mask(b, x))

    def _projections(self, b: Builder) -> Projections:
        apart = (self.q, self.k, self.v, self.key_bias, self.value_bias)
        if self.qkv is not None and apart == (None,) * 5:
            return packed_projections(self.qkv, self.out, bias=self.bias, out_bias=self.out_bias)
        if self.qkv is None and self.q and self.k and self.v:
            k, v = Projection(self.k, bias=self.key_bias), Projection(self.v, bias=self.value_bias)
            return Projections(Projection(self.q), k, v, self.out, self.bias, self.out_bias)
        raise b.fail(
            "missing-field", "stage 'vit_self_attn' needs `q`, `k` and `v`, or `qkv` alone",
            hint="`key_bias` and `value_bias` are for separate weights",
        )  # fmt: skip


class LayerScale(Stage, name="layer_scale"):
    """Multiplies each channel by a learned factor (Touvron et al. 2021)."""

    weights = ("{weight}: [hidden]",)
    reference = "Dinov2LayerScale, DINOv3ViTLayerScale"
    example = "layer_scale: {weight: blocks.0.ls1.gamma}"
    weight: str = attr(doc="Name of the factors.", main=True)

    def expand(self, b: Builder, x: Value) -> Value:
        return b.op(Binary("mul"), x, b.weight(self.weight, x.shape[-1], at="weight"), name="scaled")


class VisionSwiGluFfn(Stage, name="vision_swiglu_ffn"):
    """fc2(LayerNorm(fc11(x) * silu(fc12(x)))), the norm with its own epsilon (Fang et al. 2023)."""

    weights = (
        "{prefix}.{fc11,fc12}.weight: [ffn, hidden], and its bias with `bias`",
        "{prefix}.norm.weight: [ffn] with `norm`, and its bias",
        "{prefix}.fc2.weight: [hidden, ffn], and its bias with `out_bias`",
    )
    reference = "the gated MLP of nomic-embed-vision"
    example = "vision_swiglu_ffn: {prefix: layers.0.mlp, ffn: 128}"
    prefix: str = attr(doc="Name in front of fc11, fc12, norm and fc2.", main=True)
    ffn: int | None = attr(doc="Width between the projections.", symbol="ffn", gt=0)
    norm: bool = attr(doc="Whether the gated value is normed.", default=True)
    eps: float = attr(doc="Epsilon of that norm: LayerNorm's default, not the model's.", default=1e-5, ge=0)
    activation: Function = attr(doc="Function of the gate, fc12.", default="silu")
    bias: bool = attr(doc="Whether fc11 and fc12 have biases.", default=True)
    out_bias: bool = attr(doc="Whether fc2 has a bias.", default=True)

    def expand(self, b: Builder, x: Value) -> Value:
        p = self.prefix
        up = linear(b, x, f"{p}.fc11.weight", self.ffn, bias=self.bias, at="prefix")
        gate = linear(b, x, f"{p}.fc12.weight", up.shape[-1], bias=self.bias, at="prefix")
        h = gate_times(b, gate, up, self.activation)
        if self.norm:
            h = layer_norm(b, h, f"{p}.norm.weight", self.eps, at="prefix")
        return linear(b, h, f"{p}.fc2.weight", x.shape[-1], bias=self.out_bias, at="prefix")


class PackedSwiGlu(Stage, name="packed_swiglu"):
    """W2 (silu(gate) * up) with one weight for gate and up (Shazeer 2020)."""

    weights = (
        "{input}: [2 * ffn, hidden], rows of gate, up, and its bias with `bias`",
        "{output}: [hidden, ffn], and its bias with `bias`",
    )
    reference = "Dinov2SwiGLUFFN"
    example = "packed_swiglu: {input: mlp.weights_in.weight, output: mlp.weights_out.weight, ffn: 128}"
    input: str = attr(doc="Name of the weight of gate and up.")
    output: str = attr(doc="Name of W2.")
    ffn: int | None = attr(doc="Rows of the gate.", symbol="ffn", gt=0)
    activation: Function = attr(doc="Function of the gate.", default="silu")
    bias: bool = attr(doc="Whether both have biases.", default=True)

    def expand(self, b: Builder, x: Value) -> Value:
        gate, up = packed_rows(self.input, 2)
        return gated_parts(
            b, x, gate, up, self.output, self.activation, self.ffn, bias=self.bias, down_bias=self.bias
        )  # fmt: skip


class AttentionPool(Stage, name="attention_pool"):
    """One learned query attends to all tokens: [batch, tokens, hidden] -> [batch, 1, hidden].

    Either `kv` and `q`, or `qkv`, one weight whose rows are those of the three.
    """

    reads = ("active", "attn_mask", "attention_mask")
    weights = (
        "{query}: [1, 1, hidden]",
        "{qkv}: [3 * heads * head_dim, hidden], rows of q, k, v, and its bias with `bias`",
        "{q}: [heads * head_dim, hidden], and its bias with `bias`",
        "{kv}: [2 * heads * head_dim, hidden], rows of k, v, and its bias with `bias`",
        "{out}: [hidden, heads * head_dim], and its bias with `out_bias`",
    )
    reference = "SiglipMultiheadAttentionPoolingHead; the selector of nomic-embed-vision"
    example = (
        "attention_pool: {query: head.probe, qkv: head.attention.in_proj_weight, out: head.attention.out_proj.weight, "
        "heads: 4, head_dim: 16}"
    )
    query: str = attr(doc="Name of the learned query.")
    out: str = attr(doc="Name of the output projection.")
    qkv: str | None = attr(doc="Name of a weight that holds q, k and v.", default=None)
    q: str | None = attr(doc="Name of the query's projection.", default=None)
    kv: str | None = attr(doc="Name of a weight that holds k and v.", default=None)
    heads: int = attr(doc="Attention heads.", symbol="heads", gt=0)
    head_dim: int = attr(doc="Channels of a head.", symbol="head_dim", gt=0)
    bias: bool = attr(doc="Whether q, k and v have biases.", default=True)
    out_bias: bool = attr(doc="Whether the output projection has a bias.", default=True)

    def expand(self, b: Builder, x: Value) -> Value:
        if self.qkv is not None and self.q is None and self.kv is None:
            names = packed_rows(self.qkv, 3)
        elif self.qkv is None and self.q and self.kv:
            names = (Projection(self.q), *packed_rows(self.kv, 2))
        else:
            raise b.fail("missing-field", "stage 'attention_pool' needs `q` and `kv`, or `qkv` alone")
        width, hidden = self.heads * self.head_dim, x.shape[-1]
        probe = b.op(ExpandBatch(), b.weight(self.query, 1, 1, hidden, at="query"), x, name="query")
        q, k, v = (
            project(b, source, part, width, bias=self.bias, name=name)
            for source, part, name in zip((probe, x, x), names, "qkv", strict=True)
        )
        op = Attention(self.heads, self.heads, self.head_dim**-0.5)
        y = b.op(op, q, k, v, None, None, token_mask(b, x), name="attention")
        return linear(b, y, self.out, hidden, bias=self.out_bias, at="out", name="out")
