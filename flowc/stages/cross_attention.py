from __future__ import annotations

from flowc.frontend.builder import Builder
from flowc.frontend.stage import Stage, attr
from flowc.ir.core.cross_attention import CrossAttention as CrossAttentionOp
from flowc.ir.core.layout import Reshape, Transpose
from flowc.ir.graph import Value
from flowc.ir.types import BATCH
from flowc.stages.blocks.decoder import linear
from flowc.stages.blocks.tokens import layer_index, require_sequence


class CrossKeysValues(Stage, name="cross_keys_values"):
    """Makes a decoder layer's keys and values of the active value, once: present.N.COMPONENT.key and .value.

    It stands in a component in front of the decoder; `cross_attention` there reads them. The active value stays.
    """

    writes = ("cross cache",)
    weights = (
        "{k}: [kv_heads * head_dim, hidden], and its bias with `bias`",
        "{v}: [kv_heads * head_dim, hidden], and its bias with `bias`",
    )
    reference = "the keys and values of BartDecoderLayer.encoder_attn, T5LayerCrossAttention"
    example = "cross_keys_values: {k: decoder.layers.0.encoder_attn.k_proj.weight, v: decoder.layers.0.encoder_attn.v_proj.weight, kv_heads: 4, head_dim: 16}"
    k: str = attr(doc="Name of the key weight.")
    v: str = attr(doc="Name of the value weight.")
    kv_heads: int = attr(doc="Key and value heads.", symbol="kv_heads", gt=0)
    head_dim: int = attr(doc="Channels of a head.", symbol="head_dim", gt=0)
    bias: bool = attr(doc="Whether both have biases.", default=True)
    layer: int | None = attr(doc="Index of the decoder's layer; the number in `k` by default.", default=None, ge=0)

    def expand(self, b: Builder, x: Value) -> Value:
        tokens, made = require_sequence(b), dict[str, Value]()
        if x.shape[:2] != tokens.shape[:2]:
            raise b.fail("bad-shape", f"{b.what} keeps a column for every token of {tokens.type}, and gets {x.type}")
        for slot, weight in (("key", self.k), ("value", self.v)):
            flat = linear(b, x, weight, self.kv_heads * self.head_dim, bias=self.bias, name=slot)
            split = b.op(Reshape((*x.shape[:2], self.kv_heads, self.head_dim)), flat, name=f"{slot}_heads")
            made[slot] = b.op(Transpose((0, 2, 1, 3)), split, name=f"present_{slot}")
        b.hand_over(layer_index(b, self, self.k), **made)
        return x


class CrossAttention(Stage, name="cross_attention"):
    """Attention of a decoder's tokens to what another component made, with its output projection; no residual, no norm.

    Keys and values are those that `cross_keys_values` handed over, read from the cache as they are; `mask` is the
    input that says which of them are padding.
    """

    reads = ("active", "input", "cross cache")
    weights = (
        "{q}: [heads * head_dim, hidden], and its bias with `bias`",
        "{out}: [hidden, heads * head_dim], and its bias with `bias`",
    )
    reference = "BartDecoderLayer.encoder_attn, T5LayerCrossAttention.EncDecAttention"
    example = "cross_attention: {source: encoder, q: decoder.layers.0.encoder_attn.q_proj.weight, out: decoder.layers.0.encoder_attn.out_proj.weight, mask: encoder_attention_mask, heads: 4, head_dim: 16}"
    source: str = attr(doc="Name of the component that made the keys and values.")
    q: str = attr(doc="Name of the query weight.")
    out: str = attr(doc="Name of the output projection.")
    mask: str | None = attr(doc="Input that is 1 where a key counts; all do by default.", default=None)
    heads: int = attr(doc="Query heads.", symbol="heads", gt=0)
    kv_heads: int | None = attr(doc="Key and value heads; as many as query heads by default.", default=None, gt=0)
    head_dim: int = attr(doc="Channels of a head.", symbol="head_dim", gt=0)
    scale: float | None = attr(doc="Factor of the scores; 1 / sqrt(head_dim) by default.", default=None, gt=0)
    bias: bool = attr(doc="Whether both projections have biases.", default=True)
    layer: int | None = attr(doc="Index of the layer; the number in `q` by default.", default=None, ge=0)

    def expand(self, b: Builder, x: Value) -> Value:
        layer, kv_heads = layer_index(b, self, self.q), self.kv_heads or self.heads
        key = b.taken(self.source, layer, "key", BATCH, kv_heads, None, self.head_dim)
        value = b.taken(self.source, layer, "value", BATCH, kv_heads, None, self.head_dim)
        mask = b.input(self.mask) if self.mask is not None else None
        q = linear(b, x, self.q, self.heads * self.head_dim, bias=self.bias, name="q")
        op = CrossAttentionOp(self.heads, kv_heads, self.head_dim**-0.5 if self.scale is None else self.scale)
        y = b.op(op, q, key, value, mask, name="attention")
        return linear(b, y, self.out, x.shape[-1], bias=self.bias, name="out")
