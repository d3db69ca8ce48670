from __future__ import annotations

from flowc.frontend.builder import Builder
from flowc.frontend.stage import Stage, attr
from flowc.ir.core.elementwise import Function
from flowc.ir.graph import Value
from flowc.ir.visibility import Visibility
from flowc.stages.blocks.decoder import AttentionFacts, QkNorm, decoder_attention, gated_mlp, linear
from flowc.stages.blocks.tokens import layer_index


class Linear(Stage, name="linear"):
    """`x @ W.T (+ b)` over the last axis; W is [out, in] as HuggingFace stores it."""

    weights = ("{weight}: [out, hidden], and its bias with `bias`",)
    reference = "torch.nn.Linear"
    example = "linear: {weight: proj.weight, out: 64}"
    weight: str = attr(doc="Name of the weight.", main=True)
    out: int | None = attr(doc="Rows of the weight; as the file says by default.", default=None, gt=0)
    bias: bool = attr(doc="Whether the sibling `.bias` is added.", default=False)

    def expand(self, b: Builder, x: Value) -> Value:
        return linear(b, x, self.weight, self.out, bias=self.bias, at="weight")


class SwiGlu(Stage, name="swiglu"):
    """down(silu(gate x) * up x) (Shazeer 2020)."""

    weights = (
        "{prefix}.{gate,up}_proj.weight: [ffn, hidden], and its bias with `bias`",
        "{prefix}.down_proj.weight: [hidden, ffn], and its bias with `bias`",
    )
    reference = "LlamaMLP, Qwen3MLP"
    example = "swiglu: {prefix: model.layers.0.mlp, ffn: 128}"
    prefix: str = attr(doc="Name in front of gate_proj, up_proj and down_proj.", main=True)
    ffn: int | None = attr(doc="Width between the projections.", symbol="ffn", gt=0)
    activation: Function = attr(doc="Function of the gate.", default="silu")
    bias: bool = attr(doc="Whether the projections have biases.", default=False)

    def expand(self, b: Builder, x: Value) -> Value:
        return gated_mlp(b, x, self.prefix, self.activation, self.ffn, bias=self.bias)


class GeGlu(SwiGlu, name="geglu"):
    """down(gelu_tanh(gate x) * up x) (Shazeer 2020)."""

    reference = "GemmaMLP, Gemma2MLP, Gemma3MLP"
    example = "geglu: {prefix: model.layers.0.mlp, ffn: 128}"
    activation: Function = attr(doc="Function of the gate.", default="gelu_tanh")


class SelfAttnPrefill(Stage, name="self_attn_prefill"):
    """Causal self-attention with its cache, without the output projection: [.., hidden] -> [.., heads * head_dim].

    The input is already normed. In a graph with a past it attends to the past too.
    """

    cached = True
    reads = ("active", "rope", "positions", "attention_mask", "cache")
    writes = ("active", "cache")
    weights = (
        "{prefix}.q_proj.weight: [heads * head_dim, hidden], and its bias with `bias`",
        "{prefix}.{k,v}_proj.weight: [kv_heads * head_dim, hidden], and its bias with `bias`",
        "{prefix}.{q,k}_norm.weight: [head_dim] with `qk_norm`",
    )
    reference = "LlamaAttention, Qwen3Attention, Gemma3Attention without o_proj"
    example = "self_attn_prefill: {prefix: model.layers.0.self_attn, heads: 4, kv_heads: 2, head_dim: 16, rope: null}"
    prefix: str = attr(doc="Name in front of q_proj, k_proj and v_proj.", main=True)
    heads: int = attr(doc="Query heads.", symbol="heads", gt=0)
    kv_heads: int = attr(doc="Key and value heads.", symbol="kv_heads", gt=0)
    head_dim: int = attr(doc="Channels of a head.", symbol="head_dim", gt=0)
    scale: float | None = attr(doc="Factor of the scores; 1 / sqrt(head_dim) by default.", default=None, gt=0)
    softcap: float | None = attr(doc="Scores become softcap * tanh(score / softcap).", default=None, gt=0)
    window: int | None = attr(doc="Keys that a query sees, itself included; all by default.", default=None, gt=0)
    rope: str | None = attr(doc="Name of the rope; null for none.", default="rope")
    bias: bool = attr(doc="Whether q, k and v have biases.", default=False)
    qk_norm: bool = attr(doc="RMSNorm over each head of q and k before the rope.", default=False)
    eps: float | None = attr(doc="Epsilon of that norm.", symbol="norm_eps", ge=0)
    norm_offset: float = attr(doc="Added to that norm's gain (1 for Gemma).", default=0.0)
    layer: int | None = attr(doc="Index of the cache; the number in the prefix by default.", default=None, ge=0)

    def expand(self, b: Builder, x: Value) -> Value:
        seen = Visibility.before(self.window)
        heads = AttentionFacts(self.heads, self.kv_heads, self.head_dim, self.scale, self.softcap, seen, self.rope)
        norm = None
        if self.qk_norm:
            if self.eps is None:
                raise b.fail("missing-field", "stage 'self_attn_prefill' with `qk_norm` needs `eps`")
            norm = QkNorm(f"{self.prefix}.q_norm.weight", f"{self.prefix}.k_norm.weight", self.eps, self.norm_offset)
        layer = layer_index(b, self, self.prefix)
        return decoder_attention(b, x, self.prefix, heads, layer, qkv_bias=self.bias, qk_norm=norm)
