from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flowc.errors import nearest
from flowc.frontend.builder import Builder
from flowc.frontend.stage import Stage, attr
from flowc.ir.core.elementwise import Function
from flowc.ir.graph import Value
from flowc.ir.visibility import EVERYTHING, Visibility
from flowc.stages.blocks.decoder import AttentionFacts, add
from flowc.stages.blocks.encoder import (
    Projection,
    Projections,
    encoder_attention,
    gated_parts,
    layer_norm,
    packed_projections,
    packed_rows,
    plain_mlp,
    token_mask,
)


@dataclass(frozen=True, slots=True)
class _Names:
    """Names of a post-norm layer's weights, behind its prefix."""

    q: str
    k: str
    v: str
    out: str
    attention_norm: str
    up: str
    down: str
    output_norm: str


_STYLES = {
    "bert": _Names(
        "attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense",
        "attention.output.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm",
    ),
    "mpnet": _Names(
        "attention.attn.q", "attention.attn.k", "attention.attn.v", "attention.attn.o",
        "attention.LayerNorm", "intermediate.dense", "output.dense", "output.LayerNorm",
    ),
    "distilbert": _Names(
        "attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin",
        "sa_layer_norm", "ffn.lin1", "ffn.lin2", "output_layer_norm",
    ),
}  # fmt: skip


class BertEncoderLayer(Stage, name="bert_encoder_layer"):
    """A post-norm encoder layer: h = LN(x + O(attention(x))); LN(h + W2 activation(W1 h)) (Devlin et al. 2019)."""

    reads = ("active", "attn_mask", "attention_mask", "bias")
    weights = (
        "{prefix}.attention.self.{query,key,value}.weight: [heads * head_dim, hidden] with `style: bert`, and its bias",
        "{prefix}.attention.output.dense.weight: [hidden, heads * head_dim] with `style: bert`, and its bias",
        "{prefix}.attention.output.LayerNorm.weight: [hidden] with `style: bert`, and its bias",
        "{prefix}.attention.attn.{q,k,v}.weight: [heads * head_dim, hidden] with `style: mpnet`, and its bias",
        "{prefix}.attention.attn.o.weight: [hidden, heads * head_dim] with `style: mpnet`, and its bias",
        "{prefix}.attention.LayerNorm.weight: [hidden] with `style: mpnet`, and its bias",
        "{prefix}.attention.{q,k,v}_lin.weight: [heads * head_dim, hidden] with `style: distilbert`, and its bias",
        "{prefix}.attention.out_lin.weight: [hidden, heads * head_dim] with `style: distilbert`, and its bias",
        "{prefix}.{sa,output}_layer_norm.weight: [hidden] with `style: distilbert`, and its bias",
        "{prefix}.ffn.lin1.weight: [ffn, hidden] with `style: distilbert`, and its bias",
        "{prefix}.ffn.lin2.weight: [hidden, ffn] with `style: distilbert`, and its bias",
        "{prefix}.intermediate.dense.weight: [ffn, hidden] without `style: distilbert`, and its bias",
        "{prefix}.output.dense.weight: [hidden, ffn] without `style: distilbert`, and its bias",
        "{prefix}.output.LayerNorm.weight: [hidden] without `style: distilbert`, and its bias",
    )
    reference = "BertLayer, RobertaLayer, MPNetLayer, DistilBERT TransformerBlock"
    example = (
        "bert_encoder_layer: {prefix: encoder.layer.0, heads: 4, head_dim: 16, ffn: 128, eps: 1e-12, activation: gelu}"
    )
    prefix: str = attr(doc="Name in front of the layer's weights.", main=True)
    style: Literal["bert", "mpnet", "distilbert"] = attr(doc="How the weights are named.", default="bert")
    heads: int = attr(doc="Attention heads.", symbol="heads", gt=0)
    head_dim: int = attr(doc="Channels of a head.", symbol="head_dim", gt=0)
    ffn: int | None = attr(doc="Width between the two linears.", symbol="ffn", gt=0)
    eps: float = attr(doc="Epsilon of both norms.", symbol="norm_eps", ge=0)
    activation: Function = attr(doc="Function between the two linears.", default="gelu")
    bias: str | None = attr(doc="Name of the relative bias of the scores; null for none.", default=None)

    def expand(self, b: Builder, x: Value) -> Value:
        names = _STYLES[self.style]
        at = {n: f"{self.prefix}.{getattr(names, n)}.weight" for n in names.__slots__}
        projections = Projections(Projection(at["q"]), Projection(at["k"]), Projection(at["v"]), at["out"])
        facts = AttentionFacts(self.heads, self.heads, self.head_dim, visibility=EVERYTHING, rope=None)
        h = encoder_attention(b, x, projections, facts, token_mask(b, x), score_bias(b, self.bias, self.heads))
        x = layer_norm(b, add(b, x, h), at["attention_norm"], self.eps)
        h = plain_mlp(b, x, at["up"], at["down"], self.activation, self.ffn)
        return layer_norm(b, add(b, x, h), at["output_norm"], self.eps)


def score_bias(b: Builder, name: str | None, heads: int) -> Value | None:
    """The bias that a `relative_bias` stage made under a name, for so many heads."""
    if name is None:
        return None
    found = b.state.biases.get(name)
    if found is None:
        made = list(b.state.biases)
        raise b.fail("undefined-slot", f"there is no relative bias '{name}'",
                     hint=nearest(name, made) or "a `relative_bias` stage must come first")  # fmt: skip
    if found.shape[1] != heads:
        message = f"the relative bias '{name}' is for {found.shape[1]} heads, not for {heads}"
        raise b.fail("bad-shape", message, b.place("bias"))
    return found


class NomicEncoderLayer(Stage, name="nomic_encoder_layer"):
    """A post-norm layer with rope and a gated MLP: h = LN(x + O(attention(x))); LN(h + fc2(fc11(h) * silu(fc12(h))))."""

    reads = ("active", "rope", "positions", "attn_mask", "attention_mask")
    weights = (
        "{prefix}.attn.Wqkv.weight: [3 * heads * head_dim, hidden], rows of q, k, v, and its bias with `attention_bias`",
        "{prefix}.attn.out_proj.weight: [hidden, heads * head_dim], and its bias with `attention_bias`",
        "{prefix}.norm{1,2}.weight: [hidden], and its bias",
        "{prefix}.mlp.{fc11,fc12}.weight: [ffn, hidden], and its bias with `up_bias`",
        "{prefix}.mlp.fc2.weight: [hidden, ffn], and its bias with `down_bias`",
    )
    reference = "NomicBertLayer; NomicBertBlock of the hub's own code"
    example = (
        "nomic_encoder_layer: {prefix: encoder.layers.0, heads: 4, head_dim: 16, ffn: 128, eps: 1e-12, rope: null}"
    )
    prefix: str = attr(doc="Name in front of the layer's weights.", main=True)
    heads: int = attr(doc="Attention heads.", symbol="heads", gt=0)
    head_dim: int = attr(doc="Channels of a head.", symbol="head_dim", gt=0)
    ffn: int | None = attr(doc="Width of the gated MLP.", symbol="ffn", gt=0)
    eps: float = attr(doc="Epsilon of both norms.", symbol="norm_eps", ge=0)
    activation: Function = attr(doc="Function of the gate, fc12.", default="silu")
    rope: str | None = attr(doc="Name of the rope; null for none.", default="rope")
    interleaved: bool = attr(doc="Whether the rope turns neighbouring channels, not halves.", default=False)
    attention_bias: bool = attr(doc="Whether Wqkv and out_proj have biases.", default=False)
    up_bias: bool = attr(doc="Whether fc11 and fc12 have biases.", default=False)
    down_bias: bool = attr(doc="Whether fc2 has a bias.", default=False)

    def expand(self, b: Builder, x: Value) -> Value:
        p, bias = self.prefix, self.attention_bias
        projections = packed_projections(f"{p}.attn.Wqkv.weight", f"{p}.attn.out_proj.weight", bias=bias, out_bias=bias)
        facts = AttentionFacts(
            self.heads, self.heads, self.head_dim, visibility=EVERYTHING, rope=self.rope, interleaved=self.interleaved
        )
        h = encoder_attention(b, x, projections, facts, token_mask(b, x))
        x = layer_norm(b, add(b, x, h), f"{p}.norm1.weight", self.eps)
        up, gate = Projection(f"{p}.mlp.fc11.weight"), Projection(f"{p}.mlp.fc12.weight")
        h = gated_parts(
            b, x, gate, up, f"{p}.mlp.fc2.weight", self.activation, self.ffn,
            bias=self.up_bias, down_bias=self.down_bias,
        )  # fmt: skip
        return layer_norm(b, add(b, x, h), f"{p}.norm2.weight", self.eps)


class ModernBertLayer(Stage, name="modernbert_layer"):
    """A pre-norm layer with rope, local or full attention, and a gated MLP: h = x + Wo(attention(LN x)); h + MLP(LN h).

    Of `mlp.Wi` the first half of the rows is activated, the second half multiplies (Warner et al. 2024).
    """

    reads = ("active", "rope", "positions", "attn_mask", "attention_mask")
    weights = (
        "{prefix}.attn_norm.weight: [hidden] with `attn_norm`, and its bias with `norm_bias`",
        "{prefix}.attn.Wqkv.weight: [3 * heads * head_dim, hidden], rows of q, k, v, and its bias with `attention_bias`",
        "{prefix}.attn.Wo.weight: [hidden, heads * head_dim], and its bias with `attention_bias`",
        "{prefix}.mlp_norm.weight: [hidden], and its bias with `norm_bias`",
        "{prefix}.mlp.Wi.weight: [2 * ffn, hidden], and its bias with `mlp_bias`",
        "{prefix}.mlp.Wo.weight: [hidden, ffn], and its bias with `mlp_bias`",
    )
    reference = "ModernBertEncoderLayer"
    example = (
        "modernbert_layer: {prefix: layers.0, heads: 4, head_dim: 16, ffn: 64, eps: 1e-5, rope: null, attn_norm: false}"
    )
    prefix: str = attr(doc="Name in front of the layer's weights.", main=True)
    heads: int = attr(doc="Attention heads.", symbol="heads", gt=0)
    head_dim: int = attr(doc="Channels of a head.", symbol="head_dim", gt=0)
    ffn: int | None = attr(doc="Width of the gated MLP.", symbol="ffn", gt=0)
    eps: float = attr(doc="Epsilon of the norms.", symbol="norm_eps", ge=0)
    activation: Function = attr(doc="Function of the first half of Wi.", default="gelu")
    rope: str | None = attr(doc="Name of the rope; null for none.", default="rope")
    reach: int | None = attr(
        doc="How far a token sees on each side, in tokens; 0 is itself alone; all by default.",
        default=None,
        ge=0,
        unit="tokens",
    )
    attn_norm: bool = attr(doc="Whether a norm stands before the attention; not in the first layer.", default=True)
    attention_bias: bool = attr(doc="Whether Wqkv and attn.Wo have biases.", default=False)
    mlp_bias: bool = attr(doc="Whether Wi and mlp.Wo have biases.", default=False)
    norm_bias: bool = attr(doc="Whether the norms have biases.", default=False)

    def expand(self, b: Builder, x: Value) -> Value:
        p, bias = self.prefix, self.attention_bias
        h = layer_norm(b, x, f"{p}.attn_norm.weight", self.eps, bias=self.norm_bias) if self.attn_norm else x
        projections = packed_projections(f"{p}.attn.Wqkv.weight", f"{p}.attn.Wo.weight", bias=bias, out_bias=bias)
        facts = AttentionFacts(
            self.heads, self.heads, self.head_dim, visibility=Visibility.around(self.reach), rope=self.rope
        )
        x = add(b, x, encoder_attention(b, h, projections, facts, token_mask(b, x)))
        h = layer_norm(b, x, f"{p}.mlp_norm.weight", self.eps, bias=self.norm_bias)
        gate, up = packed_rows(f"{p}.mlp.Wi.weight", 2)
        h = gated_parts(
            b, h, gate, up, f"{p}.mlp.Wo.weight", self.activation, self.ffn,
            bias=self.mlp_bias, down_bias=self.mlp_bias,
        )  # fmt: skip
        return add(b, x, h)
