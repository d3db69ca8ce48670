"""What HuggingFace's configuration classes say where a `config.json` says nothing (transformers 5.23).

Only fields that decide numbers are here, and none whose default is null. `make parity-fuzz` holds the table against the
classes themselves.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

_DECODER = {"hidden_act": "silu", "rms_norm_eps": 1e-6}
_WINDOW = {"use_sliding_window": False, "sliding_window": 4096}
_GEMMA = {
    "hidden_activation": "gelu_pytorch_tanh", "rms_norm_eps": 1e-6, "attention_bias": False, "head_dim": 256,
    "vocab_size": 256000, "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
    "num_attention_heads": 8, "num_key_value_heads": 4, "max_position_embeddings": 8192, "query_pre_attn_scalar": 256,
    "sliding_window": 4096,
}  # fmt: skip
_HYBRID = {
    **_DECODER, "attention_bias": False, "head_dim": 256, "num_attention_heads": 16, "num_key_value_heads": 2,
    "max_position_embeddings": 32768, "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128,
    "linear_value_head_dim": 128, "linear_num_key_heads": 16, "linear_num_value_heads": 32,
}  # fmt: skip
_EXPERTS = {"moe_intermediate_size": 512, "shared_expert_intermediate_size": 512}
_BERT = {
    "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3072, "hidden_act": "gelu", "max_position_embeddings": 512, "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
}  # fmt: skip
_VISION = {
    "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "hidden_act": "gelu", "image_size": 224,
    "patch_size": 16, "num_channels": 3,
}  # fmt: skip
_DINOV2 = {**_VISION, "layer_norm_eps": 1e-6, "mlp_ratio": 4, "qkv_bias": True, "use_swiglu_ffn": False}

_CLASSES: dict[str, dict[str, Any]] = {
    "llama": {
        **_DECODER, "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
        "num_attention_heads": 32, "max_position_embeddings": 2048, "attention_bias": False, "mlp_bias": False,
    },
    "mistral": {
        **_DECODER, "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131072, "sliding_window": 4096,
    },
    "smollm3": {
        **_DECODER, "vocab_size": 128256, "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
        "num_attention_heads": 16, "num_key_value_heads": 4, "max_position_embeddings": 32768, "attention_bias": False,
        "mlp_bias": False, "use_sliding_window": False, "no_rope_layer_interval": 4,
    },
    "phi3": {
        **_DECODER, "rms_norm_eps": 1e-5, "vocab_size": 32064, "hidden_size": 3072, "intermediate_size": 8192,
        "num_hidden_layers": 32, "num_attention_heads": 32, "max_position_embeddings": 4096,
        "original_max_position_embeddings": 4096,
    },
    "gemma": {
        "hidden_act": "gelu_pytorch_tanh", "rms_norm_eps": 1e-6, "vocab_size": 256000, "hidden_size": 3072,
        "intermediate_size": 24576, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 16,
        "head_dim": 256, "max_position_embeddings": 8192, "attention_bias": False,
    },
    "gemma2": {**_GEMMA, "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0},
    "gemma3_text": {**_GEMMA, "vocab_size": 262208, "max_position_embeddings": 131072},
    "qwen2": {
        **_DECODER, **_WINDOW, "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 22016,
        "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
        "max_position_embeddings": 32768, "max_window_layers": 28,
    },
    "qwen3_moe": {
        **_DECODER, **_WINDOW, "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 6144,
        "num_hidden_layers": 24, "num_attention_heads": 32, "num_key_value_heads": 4, "max_position_embeddings": 32768,
        "attention_bias": False, "decoder_sparse_step": 1, "moe_intermediate_size": 768, "num_experts_per_tok": 8,
        "num_experts": 128, "norm_topk_prob": False,
    },
    "qwen3_next": {
        **_HYBRID, **_EXPERTS, "vocab_size": 151936, "hidden_size": 2048, "intermediate_size": 5632,
        "num_hidden_layers": 48, "decoder_sparse_step": 1, "num_experts_per_tok": 10, "num_experts": 512,
        "norm_topk_prob": True,
    },
    "qwen3_5_text": {
        **_HYBRID, "vocab_size": 248320, "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 32,
        "num_key_value_heads": 4,
    },
    "qwen3_5_moe_text": {
        **_HYBRID, **_EXPERTS, "vocab_size": 248320, "hidden_size": 2048, "num_hidden_layers": 40,
        "num_experts_per_tok": 8, "num_experts": 256,
    },
    "bert": _BERT,
    "roberta": {**_BERT, "vocab_size": 50265},
    "xlm-roberta": _BERT,
    "camembert": _BERT,
    "mpnet": {
        **{k: v for k, v in _BERT.items() if k != "type_vocab_size"}, "vocab_size": 30527,
        "relative_attention_num_buckets": 32,
    },
    "distilbert": {
        "vocab_size": 30522, "max_position_embeddings": 512, "n_layers": 6, "n_heads": 12, "dim": 768,
        "hidden_dim": 3072, "activation": "gelu",
    },
    "modernbert": {
        "vocab_size": 50368, "hidden_size": 768, "intermediate_size": 1152, "num_hidden_layers": 22,
        "num_attention_heads": 12, "hidden_activation": "gelu", "max_position_embeddings": 8192, "norm_eps": 1e-5,
        "norm_bias": False, "attention_bias": False, "local_attention": 128, "mlp_bias": False, "decoder_bias": True,
        "classifier_pooling": "cls", "classifier_bias": False, "classifier_activation": "gelu",
    },
    "nomic_bert": {**_BERT, "vocab_size": 30528, "hidden_act": "silu", "max_position_embeddings": 2048},
    "vit": {**_VISION, "intermediate_size": 3072, "layer_norm_eps": 1e-12, "qkv_bias": True, "pooler_act": "tanh"},
    "dinov2": {**_DINOV2, "patch_size": 14},
    "dinov2_with_registers": {**_DINOV2, "num_register_tokens": 4},
    "dinov3_vit": {
        **_VISION, "hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 6, "layer_norm_eps": 1e-5,
        "rope_theta": 100.0, "query_bias": True, "key_bias": False, "value_bias": True, "proj_bias": True,
        "mlp_bias": True, "use_gated_mlp": False, "num_register_tokens": 0,
    },
    "clip_vision_model": {
        **_VISION, "intermediate_size": 3072, "patch_size": 32, "hidden_act": "quick_gelu", "layer_norm_eps": 1e-5,
    },
    "siglip_vision_model": {
        **_VISION, "intermediate_size": 3072, "hidden_act": "gelu_pytorch_tanh", "layer_norm_eps": 1e-6,
        "vision_use_head": True,
    },
}  # fmt: skip
_CLASSES["qwen3"] = {**_CLASSES["qwen2"], "head_dim": 128, "attention_bias": False}

CLASS_DEFAULTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(_CLASSES)
"""Fields and their values by model type."""
