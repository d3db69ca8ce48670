from __future__ import annotations

from dataclasses import replace
from typing import Literal

from flowc.frontend.builder import Builder
from flowc.frontend.stage import Stage, attr
from flowc.ir.core.elementwise import Function
from flowc.ir.graph import Value
from flowc.stages.blocks.decoder import AttentionFacts, QkNorm
from flowc.stages.blocks.tokens import layer_index
from flowc.stages.decoder_layer import LAYER_WEIGHTS, DenseDecoderLayer, require_bound
from flowc.stages.llama import tap_cache


class GemmaDecoder(DenseDecoderLayer, name="gemma_decoder"):
    """A whole Gemma layer with its cache; every norm multiplies by 1 + weight, the gate is GELU's tanh form.

    `style: gemma` has Llama's two norms. `gemma2` has four: h = x + N2(O(attention(N1(x)))); h + N4(MLP(N3(h))).
    `gemma3` also normalises each head of q and k before the rope. A softcap acts on the scaled scores before the mask.
    """

    norm_offset = 1.0
    weights = (
        *LAYER_WEIGHTS,
        "{prefix}.{pre,post}_feedforward_layernorm.weight: [hidden] without `style: gemma`",
        "{prefix}.self_attn.{q,k}_norm.weight: [head_dim] with `style: gemma3`",
    )
    reference = "GemmaDecoderLayer, Gemma2DecoderLayer, Gemma3DecoderLayer"
    example = (
        "gemma_decoder: {prefix: model.layers.0, style: gemma3, heads: 4, kv_heads: 1, head_dim: 16, ffn: 128, "
        "eps: 1e-6, rope: null}"
    )
    style: Literal["gemma", "gemma2", "gemma3"] = attr(doc="Which generation's layer it is.")
    activation: Function = attr(doc="Function of the gate.", default="gelu_tanh")
    softcap: float | None = attr(doc="Scores become softcap * tanh(score / softcap).", default=None, gt=0)

    def facts(self) -> AttentionFacts:
        return replace(super().facts(), softcap=self.softcap)

    def norms(self) -> tuple[str, str | None, str, str | None]:
        if self.style == "gemma":
            return super().norms()
        return (
            "input_layernorm",
            "post_attention_layernorm",
            "pre_feedforward_layernorm",
            "post_feedforward_layernorm",
        )

    def qk_norm_facts(self) -> QkNorm | None:
        if self.style != "gemma3":
            return None
        attention = f"{self.prefix}.self_attn"
        return QkNorm(f"{attention}.q_norm.weight", f"{attention}.k_norm.weight", self.eps, self.norm_offset)


class GemmaDecodeLayer(GemmaDecoder, name="gemma_decode_layer"):
    """A Gemma layer of a decode flow spelt out by hand; `bind_decode_inputs` must come first."""

    reads = ("active", "rope", "positions", "attention_mask", "cache", "decode")
    example = (
        "gemma_decode_layer: {prefix: model.layers.0, style: gemma3, heads: 4, kv_heads: 1, head_dim: 16, ffn: 128, "
        "eps: 1e-6, rope: null}"
    )

    def expand(self, b: Builder, x: Value) -> Value:
        require_bound(b, layer_index(b, self, self.prefix))
        return super().expand(b, x)


class GemmaKvTap(Stage, name="gemma_kv_tap"):
    """Hands out a layer's rotated keys and its values as its cache, and leaves the active value alone.

    Stands between the layer's first norm and its attention, on the normed input. An attention with a cache of its own
    takes its place.
    """

    cached = True
    reads = ("active", "rope", "positions", "cache")
    writes = ("cache",)
    weights = (
        "{prefix}.self_attn.{k,v}_proj.weight: [kv_heads * head_dim, hidden], and its bias with `attention_bias`",
        "{prefix}.self_attn.k_norm.weight: [head_dim] with `qk_norm`",
    )
    reference = "the cache update in Gemma*Attention"
    example = "gemma_kv_tap: {prefix: model.layers.0, kv_heads: 1, head_dim: 16, rope: null}"
    prefix: str = attr(doc="Name in front of the layer's weights.", main=True)
    kv_heads: int = attr(doc="Key and value heads.", symbol="kv_heads", gt=0)
    head_dim: int = attr(doc="Channels of a head.", symbol="head_dim", gt=0)
    qk_norm: bool = attr(doc="Whether k is normalised head by head before the rope (Gemma 3).", default=False)
    eps: float | None = attr(doc="Epsilon of that norm.", symbol="norm_eps", ge=0)
    attention_bias: bool = attr(doc="Whether k and v have biases.", default=False)
    rope: str | None = attr(doc="Name of the rope; null for none.", default="rope")
    layer: int | None = attr(doc="Index of the cache; the number in the prefix by default.", default=None, ge=0)

    def expand(self, b: Builder, x: Value) -> Value:
        heads = AttentionFacts(self.kv_heads, self.kv_heads, self.head_dim, rope=self.rope)
        attention, norm = f"{self.prefix}.self_attn", None
        if self.qk_norm:
            if self.eps is None:
                raise b.fail("missing-field", "stage 'gemma_kv_tap' with `qk_norm` needs `eps`")
            norm = QkNorm(f"{attention}.q_norm.weight", f"{attention}.k_norm.weight", self.eps, 1.0)
        tap_cache(b, x, attention, heads, layer_index(b, self, self.prefix), bias=self.attention_bias, qk_norm=norm)
        return x
