from __future__ import annotations

from flowc.stages.decoder_layer import DenseDecoderLayer


class Phi3Decoder(DenseDecoderLayer, name="phi3_decoder"):
    """A whole Phi-3 layer with its cache: as `llama_decoder`, with q, k, v and gate, up as rows of one tensor each."""

    packed = True
    weights = (
        "{prefix}.input_layernorm.weight: [hidden]",
        "{prefix}.self_attn.qkv_proj.weight: [(heads + 2 * kv_heads) * head_dim, hidden], rows of q, k, v, and its bias with `attention_bias`",
        "{prefix}.self_attn.o_proj.weight: [hidden, heads * head_dim], and its bias with `output_bias`, else `attention_bias`",
        "{prefix}.post_attention_layernorm.weight: [hidden]",
        "{prefix}.mlp.gate_up_proj.weight: [2 * ffn, hidden], rows of gate, up, and its bias with `mlp_bias`",
        "{prefix}.mlp.down_proj.weight: [hidden, ffn], and its bias with `mlp_bias`",
    )
    reference = "Phi3DecoderLayer"
    example = (
        "phi3_decoder: {prefix: model.layers.0, heads: 4, kv_heads: 2, head_dim: 16, ffn: 128, eps: 1e-5, rope: null}"
    )
