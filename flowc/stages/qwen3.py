from __future__ import annotations

from flowc.frontend.builder import Builder
from flowc.frontend.stage import attr
from flowc.ir.graph import Value
from flowc.stages.blocks.decoder import QkNorm
from flowc.stages.blocks.tokens import layer_index
from flowc.stages.decoder_layer import LAYER_WEIGHTS, DenseDecoderLayer, require_bound


class Qwen3Decoder(DenseDecoderLayer, name="qwen3_decoder"):
    """A whole Qwen layer with its cache: as `llama_decoder`, with an RMSNorm over each head of q and k.

    Biases come before that norm, the rope after it. Qwen2 has no such norm (`qk_norm: false`) and biases on q, k and v
    alone (`attention_bias: true, output_bias: false`).
    """

    reads = ("active", "rope", "positions", "attention_mask", "cache")
    weights = (*LAYER_WEIGHTS, "{prefix}.self_attn.{q,k}_norm.weight: [head_dim] with `qk_norm`")
    reference = "Qwen3DecoderLayer, Qwen2DecoderLayer"
    example = (
        "qwen3_decoder: {prefix: model.layers.0, heads: 4, kv_heads: 2, head_dim: 16, ffn: 128, eps: 1e-6, rope: null}"
    )
    qk_norm: bool = attr(doc="RMSNorm over each head of q and k before the rope.", default=True)

    def qk_norm_facts(self) -> QkNorm | None:
        attention = f"{self.prefix}.self_attn"
        return QkNorm(f"{attention}.q_norm.weight", f"{attention}.k_norm.weight", self.eps) if self.qk_norm else None


class Qwen3DecodeLayer(Qwen3Decoder, name="qwen3_decode_layer"):
    """A Qwen layer of a decode flow spelt out by hand; `bind_decode_inputs` must come first."""

    reads = ("active", "rope", "positions", "attention_mask", "cache", "decode")
    example = "qwen3_decode_layer: {prefix: model.layers.0, heads: 4, kv_heads: 2, head_dim: 16, ffn: 128, eps: 1e-6, rope: null}"

    def expand(self, b: Builder, x: Value) -> Value:
        require_bound(b, layer_index(b, self, self.prefix))
        return super().expand(b, x)
