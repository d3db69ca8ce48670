from __future__ import annotations

from flowc.blocks import Heads, add, decoder_attention, gated_mlp, keys_values, linear, rms_norm
from flowc.expand import Expansion
from flowc.ir.graph import Value
from flowc.ir.ops.elementwise import Function
from flowc.ir.ops.layout import Concat, Reshape, Transpose
from flowc.ir.types import BATCH, PAST
from flowc.stage import Stage, attr

_LAYER_WEIGHTS = (
    "{prefix}.input_layernorm.weight: [hidden]",
    "{prefix}.self_attn.q_proj.weight: [heads * head_dim, hidden]",
    "{prefix}.self_attn.{k,v}_proj.weight: [kv_heads * head_dim, hidden]",
    "{prefix}.self_attn.o_proj.weight: [hidden, heads * head_dim]",
    "{prefix}.post_attention_layernorm.weight: [hidden]",
    "{prefix}.mlp.{gate,up}_proj.weight: [ffn, hidden]",
    "{prefix}.mlp.down_proj.weight: [hidden, ffn]",
    "biases beside them with `attention_bias`, `mlp_bias`",
)


class LlamaDecoder(Stage, name="llama_decoder"):
    """A whole Llama layer with its cache: h = x + O(attention(norm(x))); h + SwiGLU(norm(h)).

    In a graph with a past it continues from the cache, so one flow serves prefill and decode.
    """

    cached = True
    reads = ("active", "rope", "attention_mask", "cache")
    writes = ("active", "cache")
    weights = _LAYER_WEIGHTS
    reference = "LlamaDecoderLayer, MistralDecoderLayer"
    example = (
        "llama_decoder: {prefix: model.layers.0, heads: 4, kv_heads: 2, head_dim: 16, ffn: 128, eps: 1e-5, rope: null}"
    )
    prefix: str = attr(doc="Name in front of the layer's weights.", main=True)
    heads: int = attr(doc="Query heads.", symbol="heads", gt=0)
    kv_heads: int = attr(doc="Key and value heads.", symbol="kv_heads", gt=0)
    head_dim: int = attr(doc="Channels of a head.", symbol="head_dim", gt=0)
    eps: float = attr(doc="Epsilon of both norms.", symbol="norm_eps", ge=0)
    ffn: int | None = attr(doc="Width of the gated MLP.", symbol="ffn", gt=0)
    activation: Function = attr(doc="Function of the gate.", default="silu")
    attention_bias: bool = attr(doc="Whether q, k, v and o have biases.", default=False)
    mlp_bias: bool = attr(doc="Whether the MLP has biases.", default=False)
    scale: float | None = attr(doc="Factor of the scores; 1 / sqrt(head_dim) by default.", default=None, gt=0)
    window: int | None = attr(doc="Keys that a query sees, itself included; all by default.", default=None, gt=0)
    rope: str | None = attr(doc="Name of the rope; null for none.", default="rope")
    layer: int | None = attr(doc="Index of the cache; the number in the prefix by default.", default=None, ge=0)

    def expand(self, f: Expansion, x: Value) -> Value:
        heads = Heads(self.heads, self.kv_heads, self.head_dim, self.scale, window=self.window, rope=self.rope)
        p, layer = self.prefix, f.layer_index(self, self.prefix)
        h = rms_norm(f, x, f"{p}.input_layernorm.weight", self.eps)
        h = decoder_attention(f, h, f"{p}.self_attn", heads, layer, qkv_bias=self.attention_bias)
        h = linear(f, h, f"{p}.self_attn.o_proj.weight", x.shape[-1], bias=self.attention_bias)
        x = add(f, x, h)
        h = rms_norm(f, x, f"{p}.post_attention_layernorm.weight", self.eps)
        h = gated_mlp(f, h, f"{p}.mlp", self.activation, self.ffn, bias=self.mlp_bias)
        return add(f, x, h)


class LlamaDecodeLayer(LlamaDecoder, name="llama_decode_layer"):
    """A Llama layer of a decode flow spelt out by hand; `bind_decode_inputs` must come first."""

    reads = ("active", "rope", "attention_mask", "cache", "decode")
    example = "llama_decode_layer: {prefix: model.layers.0, heads: 4, kv_heads: 2, head_dim: 16, ffn: 128, eps: 1e-5, rope: null}"

    def expand(self, f: Expansion, x: Value) -> Value:
        require_bound(f, f.layer_index(self, self.prefix))
        return super().expand(f, x)


class LlamaKvTap(Stage, name="llama_kv_tap"):
    """Hands out a layer's rotated keys and its values as its cache, and leaves the active value alone.

    Stands before the layer, on the same input. A layer with a cache of its own takes its place.
    """

    cached = True
    reads = ("active", "rope", "cache")
    writes = ("cache",)
    weights = (
        "{prefix}.input_layernorm.weight: [hidden]",
        "{prefix}.self_attn.{k,v}_proj.weight: [kv_heads * head_dim, hidden]",
    )
    reference = "the cache update in LlamaAttention"
    example = "llama_kv_tap: {prefix: model.layers.0, kv_heads: 2, head_dim: 16, eps: 1e-5, rope: null}"
    prefix: str = attr(doc="Name in front of the layer's weights.", main=True)
    kv_heads: int = attr(doc="Key and value heads.", symbol="kv_heads", gt=0)
    head_dim: int = attr(doc="Channels of a head.", symbol="head_dim", gt=0)
    eps: float = attr(doc="Epsilon of the norm.", symbol="norm_eps", ge=0)
    attention_bias: bool = attr(doc="Whether k and v have biases.", default=False)
    rope: str | None = attr(doc="Name of the rope; null for none.", default="rope")
    layer: int | None = attr(doc="Index of the cache; the number in the prefix by default.", default=None, ge=0)

    def expand(self, f: Expansion, x: Value) -> Value:
        heads = Heads(self.kv_heads, self.kv_heads, self.head_dim, rope=self.rope)
        layer = f.layer_index(self, self.prefix)
        h = rms_norm(f, x, f"{self.prefix}.input_layernorm.weight", self.eps)
        tap_cache(f, h, f"{self.prefix}.self_attn", heads, layer, bias=self.attention_bias)
        return x


def tap_cache(f: Expansion, h: Value, prefix: str, heads: Heads, layer: int, *, bias: bool = False) -> None:
    """Make a layer's cache of its normed input: present.N.key and .value, behind the past where there is one."""
    pasts = f.past_keys(layer, heads.kv_heads, heads.head_dim, heads.value_dim)
    states: list[Value] = []
    for name, value, past in zip(("key", "value"), keys_values(f, h, prefix, heads, bias=bias), pasts, strict=True):
        split = f.op(Reshape((*value.shape[:2], heads.kv_heads, heads.head_dim)), value, name=f"{name}_heads")
        state = f.op(Transpose((0, 2, 1, 3)), split, name=name)
        states.append(state if past is None else f.op(Concat(2), past, state, name=f"present_{name}"))
    f.present(layer, key=states[0], value=states[1])


class BindDecodeInputs(Stage, name="bind_decode_inputs"):
    """Declares the cache that the layers of a decode flow spelt out by hand continue from."""

    reads = ()
    writes = ("decode", "cache")
    cached = True
    reference = "transformers `past_key_values`"
    example = "bind_decode_inputs: {layers: 2, kv_heads: 2, head_dim: 16}"
    layers: int = attr(doc="How many layers have a cache.", symbol="layers", gt=0)
    kv_heads: int = attr(doc="Key and value heads.", symbol="kv_heads", gt=0)
    head_dim: int = attr(doc="Channels of a head.", symbol="head_dim", gt=0)

    def expand(self, f: Expansion, x: Value) -> Value:
        if not f.decoding:
            raise f.fail("wrong-phase", f"stage 'bind_decode_inputs' needs a past; the '{f.phase}' graph has none")
        for layer in range(self.layers):
            f.past(layer, "key", BATCH, self.kv_heads, PAST, self.head_dim)
            f.past(layer, "value", BATCH, self.kv_heads, PAST, self.head_dim)
        f.slots.named["decode"] = self.layers
        return x


def require_bound(f: Expansion, layer: int) -> None:
    """Report a decode layer without `bind_decode_inputs` in front of it, or beyond the layers it bound."""
    bound = f.slots.named.get("decode")
    if bound is None:
        raise f.fail("undefined-slot", "a decode layer needs `bind_decode_inputs` before it")
    if layer >= bound:
        raise f.fail("undefined-slot", f"layer {layer} is beyond the {bound} layers that `bind_decode_inputs` bound")
