from __future__ import annotations

from flowc.frontend.builder import Builder
from flowc.frontend.stage import Stage, attr
from flowc.ir.core.layout import Concat, Reshape, Transpose
from flowc.ir.graph import Value
from flowc.ir.types import BATCH, PAST
from flowc.stages.blocks.decoder import AttentionFacts, QkNorm, keys_values, rms_norm
from flowc.stages.blocks.tokens import layer_index
from flowc.stages.decoder_layer import DenseDecoderLayer, require_bound


class LlamaDecoder(DenseDecoderLayer, name="llama_decoder"):
    """A whole Llama layer with its cache: h = x + O(attention(norm(x))); h + SwiGLU(norm(h)).

    In a graph with a past it continues from the cache, so one flow serves prefill and decode.
    """

    reference = "LlamaDecoderLayer, MistralDecoderLayer, SmolLM3DecoderLayer"
    example = (
        "llama_decoder: {prefix: model.layers.0, heads: 4, kv_heads: 2, head_dim: 16, ffn: 128, eps: 1e-5, rope: null}"
    )


class LlamaDecodeLayer(LlamaDecoder, name="llama_decode_layer"):
    """A Llama layer of a decode flow spelt out by hand; `bind_decode_inputs` must come first."""

    reads = ("active", "rope", "positions", "attention_mask", "cache", "decode")
    example = "llama_decode_layer: {prefix: model.layers.0, heads: 4, kv_heads: 2, head_dim: 16, ffn: 128, eps: 1e-5, rope: null}"

    def expand(self, b: Builder, x: Value) -> Value:
        require_bound(b, layer_index(b, self, self.prefix))
        return super().expand(b, x)


class LlamaKvTap(Stage, name="llama_kv_tap"):
    """Hands out a layer's rotated keys and its values as its cache, and leaves the active value alone.

    Stands before the layer, on the same input. A layer with a cache of its own takes its place.
    """

    cached = True
    reads = ("active", "rope", "positions", "cache")
    writes = ("cache",)
    weights = (
        "{prefix}.input_layernorm.weight: [hidden]",
        "{prefix}.self_attn.{k,v}_proj.weight: [kv_heads * head_dim, hidden], and its bias with `attention_bias`",
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

    def expand(self, b: Builder, x: Value) -> Value:
        heads = AttentionFacts(self.kv_heads, self.kv_heads, self.head_dim, rope=self.rope)
        layer = layer_index(b, self, self.prefix)
        h = rms_norm(b, x, f"{self.prefix}.input_layernorm.weight", self.eps)
        tap_cache(b, h, f"{self.prefix}.self_attn", heads, layer, bias=self.attention_bias)
        return x


def tap_cache(
    b: Builder,
    h: Value,
    prefix: str,
    heads: AttentionFacts,
    layer: int,
    *,
    bias: bool = False,
    qk_norm: QkNorm | None = None,
) -> None:
    """Make a layer's cache of its normed input: present.N.key and .value, behind the past where there is one."""
    pasts = b.past_keys(layer, heads.kv_heads, heads.head_dim, heads.value_dim)
    states: list[Value] = []
    made = keys_values(b, h, prefix, heads, bias=bias, qk_norm=qk_norm)
    for name, value, past in zip(("key", "value"), made, pasts, strict=True):
        split = b.op(Reshape((*value.shape[:2], heads.kv_heads, heads.head_dim)), value, name=f"{name}_heads")
        state = b.op(Transpose((0, 2, 1, 3)), split, name=name)
        states.append(state if past is None else b.op(Concat(2), past, state, name=f"present_{name}"))
    b.present(layer, tap=True, key=states[0], value=states[1])


class BindDecodeInputs(Stage, name="bind_decode_inputs"):
    """Declares the cache that the layers of a decode flow spelt out by hand continue from."""

    reads = ()
    writes = ("decode",)
    cached = True
    reference = "transformers `past_key_values`"
    example = "bind_decode_inputs: {layers: 2, kv_heads: 2, head_dim: 16}"
    layers: int = attr(doc="How many layers have a cache.", symbol="layers", gt=0)
    kv_heads: int = attr(doc="Key and value heads.", symbol="kv_heads", gt=0)
    head_dim: int = attr(doc="Channels of a head.", symbol="head_dim", gt=0)

    def expand(self, b: Builder, x: Value) -> Value:
        if not b.decoding:
            raise b.fail("wrong-phase", f"stage 'bind_decode_inputs' needs a past; the '{b.phase}' graph has none")
        for layer in range(self.layers):
            b.past(layer, "key", BATCH, self.kv_heads, PAST, self.head_dim)
            b.past(layer, "value", BATCH, self.kv_heads, PAST, self.head_dim)
        b.state.bound_layers = self.layers
        return x
