"""What the whole-layer stages of all decoder families have in common: one declaration, one expansion."""

from __future__ import annotations

from typing import ClassVar

from flowc.frontend.builder import Builder
from flowc.frontend.stage import Stage, attr
from flowc.ir.core.elementwise import Function
from flowc.ir.graph import Value
from flowc.ir.visibility import Visibility
from flowc.stages.blocks.decoder import AttentionFacts, QkNorm, add, decoder_attention, gated_mlp, linear, rms_norm
from flowc.stages.blocks.tokens import layer_index

ATTENTION_WEIGHTS = (
    "{prefix}.input_layernorm.weight: [hidden]",
    "{prefix}.self_attn.q_proj.weight: [heads * head_dim, hidden], and its bias with `attention_bias`",
    "{prefix}.self_attn.{k,v}_proj.weight: [kv_heads * head_dim, hidden], and its bias with `attention_bias`",
    "{prefix}.self_attn.o_proj.weight: [hidden, heads * head_dim], and its bias with `output_bias`, else `attention_bias`",
    "{prefix}.post_attention_layernorm.weight: [hidden]",
)
LAYER_WEIGHTS = (
    *ATTENTION_WEIGHTS,
    "{prefix}.mlp.{gate,up}_proj.weight: [ffn, hidden], and its bias with `mlp_bias`",
    "{prefix}.mlp.down_proj.weight: [hidden, ffn], and its bias with `mlp_bias`",
)
QK_NORM_WEIGHTS = ("{prefix}.self_attn.{q,k}_norm.weight: [head_dim]",)


class DecoderLayer(Stage):
    """Base of the whole layers with a cache: h = x + O(attention(norm(x))); h + MLP(norm(h)).

    A family states what differs: how its norms are called and offset, whether q and k are normalised, which MLP it has.
    """

    cached = True
    reads = ("active", "rope", "positions", "attention_mask", "cache")
    writes = ("active", "cache")
    weights = LAYER_WEIGHTS
    norm_offset: ClassVar[float] = 0.0
    """Added to the gain of every norm."""
    packed: ClassVar[bool] = False
    """Whether q, k, v and gate, up are rows of one tensor each (Phi-3)."""
    prefix: str = attr(doc="Name in front of the layer's weights.", main=True)
    heads: int = attr(doc="Query heads.", symbol="heads", gt=0)
    kv_heads: int = attr(doc="Key and value heads.", symbol="kv_heads", gt=0)
    head_dim: int = attr(doc="Channels of a head.", symbol="head_dim", gt=0)
    eps: float = attr(doc="Epsilon of the norms.", symbol="norm_eps", ge=0)
    attention_bias: bool = attr(doc="Whether q, k and v have biases.", default=False)
    output_bias: bool | None = attr(doc="Whether o has a bias; as `attention_bias` by default.", default=None)
    scale: float | None = attr(doc="Factor of the scores; 1 / sqrt(head_dim) by default.", default=None, gt=0)
    window: int | None = attr(doc="Keys that a query sees, itself included; all by default.", default=None, gt=0)
    rope: str | None = attr(doc="Name of the rope; null for none.", default="rope")
    layer: int | None = attr(doc="Index of the cache; the number in the prefix by default.", default=None, ge=0)

    def facts(self) -> AttentionFacts:
        """What decides the attention."""
        seen = Visibility.before(self.window)
        return AttentionFacts(self.heads, self.kv_heads, self.head_dim, self.scale, visibility=seen, rope=self.rope)

    def qk_norm_facts(self) -> QkNorm | None:
        """The norm over each head of q and k, where the family has one."""
        return None

    def norms(self) -> tuple[str, str | None, str, str | None]:
        """Names of the norms before and after the attention, before and after the MLP."""
        return "input_layernorm", None, "post_attention_layernorm", None

    def mlp(self, b: Builder, h: Value) -> Value:
        """The feed-forward part on its normed input."""
        raise NotImplementedError

    def attend(self, b: Builder, h: Value) -> Value:
        """Attention with its output projection on the normed input."""
        prefix, width = f"{self.prefix}.self_attn", h.shape[-1]
        layer = layer_index(b, self, self.prefix)
        y = decoder_attention(
            b, h, prefix, self.facts(), layer,
            qkv_bias=self.attention_bias, qk_norm=self.qk_norm_facts(), packed=self.packed,
        )  # fmt: skip
        bias = self.attention_bias if self.output_bias is None else self.output_bias
        return linear(b, y, f"{prefix}.o_proj.weight", width, bias=bias)

    def expand(self, b: Builder, x: Value) -> Value:
        before, after, before_mlp, after_mlp = self.norms()
        x = add(b, x, self._normed(b, self.attend(b, self._normed(b, x, before)), after))
        return add(b, x, self._normed(b, self.mlp(b, self._normed(b, x, before_mlp)), after_mlp))

    def _normed(self, b: Builder, x: Value, name: str | None) -> Value:
        if name is None:
            return x
        return rms_norm(b, x, f"{self.prefix}.{name}.weight", self.eps, offset=self.norm_offset)


class DenseDecoderLayer(DecoderLayer):
    """Base of the layers with one gated MLP."""

    ffn: int | None = attr(doc="Width of the gated MLP.", symbol="ffn", gt=0)
    activation: Function = attr(doc="Function of the gate.", default="silu")
    mlp_bias: bool = attr(doc="Whether the MLP has biases.", default=False)

    def mlp(self, b: Builder, h: Value) -> Value:
        return gated_mlp(
            b, h, f"{self.prefix}.mlp", self.activation, self.ffn, bias=self.mlp_bias, packed=self.packed
        )  # fmt: skip


def require_bound(b: Builder, layer: int) -> None:
    """Report a decode layer without `bind_decode_inputs` in front of it, or beyond the layers it bound."""
    bound = b.state.bound_layers
    if bound is None:
        raise b.fail("undefined-slot", "a decode layer needs `bind_decode_inputs` before it")
    if layer >= bound:
        raise b.fail("undefined-slot", f"layer {layer} is beyond the {bound} layers that `bind_decode_inputs` bound")
