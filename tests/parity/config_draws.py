"""Random configurations of every family: a small sound model, and a few moves (tests/parity/config_moves.py) on it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.parity.config_moves import (
    FULL,
    LINEAR,
    SLIDING,
    Fields,
    Move,
    activation,
    hybrid_layers,
    layer_ropes,
    leave_out,
    local_layers,
    no_rope,
    null,
    one_rope,
    put,
    routing,
    stray,
    window,
)

Base = Callable[[random.Random], Fields]


@dataclass(frozen=True, slots=True)
class Drawn:
    """A family's draws: the model classes that may be made, a sound base, and the moves."""

    kind: str
    classes: tuple[str, ...]
    base: Base
    moves: tuple[Move, ...]
    nested: str = ""
    """The field that holds the text model's configuration, where it is inside another."""


def draw(r: random.Random, family: str) -> tuple[str, str, Fields]:
    """Kind of model, model class and configuration."""
    drawn = FAMILIES[family]
    whole = drawn.base(r)
    fields = whole[drawn.nested] if drawn.nested else whole
    for move in r.choices(drawn.moves, k=r.choice((1, 1, 2, 2, 3, 4))):
        move(r, fields)
    name = r.choice(drawn.classes)
    return drawn.kind, name, {"architectures": [name], **whole}


def _decoder(model_type: str, **fields: Any) -> Base:
    def base(r: random.Random) -> Fields:
        return {
            "model_type": model_type, "vocab_size": 40, "hidden_size": 64, "num_hidden_layers": r.choice((2, 3)),
            "num_attention_heads": 4, "num_key_value_heads": r.choice((1, 2, 4)), "head_dim": 16,
            "intermediate_size": 24,
            "rms_norm_eps": r.choice((1e-6, 1e-5)), "max_position_embeddings": r.choice((16, 64)),
            "tie_word_embeddings": r.random() < 0.5, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0}, **fields,
        }  # fmt: skip

    return base


def _without(base: Base, *names: str) -> Base:
    def fewer(r: random.Random) -> Fields:
        return {k: v for k, v in base(r).items() if k not in names}

    return fewer


def _gemma3_text(r: random.Random) -> Fields:
    layers = r.choice((2, 3))
    return {
        **_decoder("gemma3_text")(r), "sliding_window": 3, "query_pre_attn_scalar": 7, "tie_word_embeddings": True,
        "hidden_activation": "gelu_pytorch_tanh", "num_hidden_layers": layers,
        "layer_types": [FULL, SLIDING, r.choice((FULL, SLIDING))][:layers], "rope_parameters": {
            FULL: {"rope_type": "default", "rope_theta": 1000.0}, SLIDING: {"rope_type": "default", "rope_theta": 90.0},
        },
    }  # fmt: skip


def _gemma3(r: random.Random) -> Fields:
    vision = {
        "model_type": "siglip_vision_model", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
        "num_attention_heads": 1, "image_size": 4, "patch_size": 2,
    }  # fmt: skip
    return {
        "model_type": "gemma3", "text_config": _gemma3_text(r), "vision_config": vision,
        "mm_tokens_per_image": 1, "image_token_index": 39, "boi_token_index": 38, "eoi_token_index": 37,
    }  # fmt: skip


def _hybrid(model_type: str, **fields: Any) -> Base:
    def base(r: random.Random) -> Fields:
        layers = r.choice((2, 3))
        return {
            **_decoder(model_type)(r), "num_hidden_layers": layers, "num_key_value_heads": r.choice((1, 2)),
            "head_dim": 32, "linear_conv_kernel_dim": r.choice((2, 4)), "linear_key_head_dim": 8,
            "linear_value_head_dim": 6, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
            "layer_types": [LINEAR] * (layers - 1) + [FULL], **fields,
        }  # fmt: skip

    return base


_MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 12}
_SHARED = {**_MOE, "shared_expert_intermediate_size": 10}


def _wrapped(model_type: str, text: Base) -> Base:
    def base(r: random.Random) -> Fields:
        vision = {
            "depth": 1, "hidden_size": 8, "intermediate_size": 8, "num_heads": 1, "out_hidden_size": 32,
            "num_position_embeddings": 4,
        }  # fmt: skip
        return {
            "model_type": model_type, "text_config": text(r), "vision_config": vision, "image_token_id": 39,
            "video_token_id": 38, "vision_start_token_id": 37, "vision_end_token_id": 36, "tie_word_embeddings": False,
        }  # fmt: skip

    return base


def _encoder(model_type: str, **fields: Any) -> Base:
    def base(r: random.Random) -> Fields:
        return {
            "model_type": model_type, "vocab_size": 40, "hidden_size": 32, "num_hidden_layers": r.choice((2, 3)),
            "num_attention_heads": r.choice((2, 4)), "intermediate_size": 24, "hidden_act": "gelu",
            "max_position_embeddings": 24, "type_vocab_size": r.choice((1, 2)), "layer_norm_eps": 1e-5, **fields,
        }  # fmt: skip

    return base


def _distilbert(r: random.Random) -> Fields:
    return {
        "model_type": "distilbert", "vocab_size": 40, "dim": 32, "n_layers": 2, "n_heads": r.choice((2, 4)),
        "hidden_dim": 24, "activation": "gelu", "max_position_embeddings": 24, "pad_token_id": 0,
    }  # fmt: skip


def _modernbert(r: random.Random) -> Fields:
    return {
        "model_type": "modernbert", "vocab_size": 40, "hidden_size": 64, "num_hidden_layers": r.choice((2, 3, 4)),
        "num_attention_heads": 4, "intermediate_size": 24, "local_attention": 4, "max_position_embeddings": 64,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2,
        "norm_eps": 1e-5,
    }  # fmt: skip


def _vision(model_type: str, **fields: Any) -> Base:
    def base(r: random.Random) -> Fields:
        return {
            "model_type": model_type, "hidden_size": 32, "num_hidden_layers": 2,
            "num_attention_heads": r.choice((2, 4)),
            "intermediate_size": 24, "hidden_act": "gelu", "layer_norm_eps": r.choice((1e-6, 1e-5)), "image_size": 12,
            "patch_size": r.choice((3, 4)), "num_channels": r.choice((1, 3)), **fields,
        }  # fmt: skip

    return base


_NULLS = ("rope_scaling", "rope_parameters", "num_key_value_heads", "head_dim", "sliding_window", "layer_types")
_OMIT = ("max_position_embeddings", "rms_norm_eps", "hidden_act", "rope_parameters", "head_dim")
_BOTH = (True, False)
_COMMON: tuple[Move, ...] = (activation("hidden_act"), leave_out(*_OMIT), null(*_NULLS), stray)
_ROPE = one_rope()
_LAYERED = layer_ropes(("rope_theta", "rope_local_base_freq"))
_BERT_LAYERED = layer_ropes(("global_rope_theta", "local_rope_theta"))
_GEMMA_MOVES: tuple[Move, ...] = (
    activation("hidden_activation", "hidden_activation", "hidden_act"), stray, window,
    null(*_NULLS, "final_logit_softcapping"),
    leave_out("max_position_embeddings", "rms_norm_eps", "hidden_activation", "rope_parameters", "sliding_window"),
    put(query_pre_attn_scalar=(5, 64), attention_bias=_BOTH),
    put(final_logit_softcapping=(3.0, 20.0), attn_logit_softcapping=(2.0, 9.0)),
)  # fmt: skip
_TEXT_HEADS = ("Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification")
_ENCODER_MOVES: tuple[Move, ...] = (
    activation("hidden_act"), leave_out("max_position_embeddings", "layer_norm_eps", "hidden_act", "type_vocab_size"),
    null("position_embedding_type", "classifier_dropout", "layer_norm_eps", "head_dim"), stray,
    put(layer_norm_eps=(1e-12, 0.01), num_attention_heads=(1, 2, 8)),
)  # fmt: skip
_VISION_MOVES: tuple[Move, ...] = (
    activation("hidden_act"), leave_out("layer_norm_eps", "hidden_act", "num_channels"), stray,
    null("head_dim", "hidden_act"), put(qkv_bias=_BOTH, layer_norm_eps=(1e-12, 0.01), head_dim=(8, 16)),
)  # fmt: skip
_HYBRID_MOVES: tuple[Move, ...] = (
    activation("hidden_act"), stray, hybrid_layers, one_rope(pairs=4), one_rope(pairs=4),
    leave_out("max_position_embeddings", "rms_norm_eps", "hidden_act", "rope_parameters"),
    null("rope_scaling", "rope_parameters", "layer_types", "partial_rotary_factor"),
    put(attention_bias=_BOTH, partial_rotary_factor=(0.25, 0.5, 1.0, None)),
)  # fmt: skip
_PHI3_MOVES: tuple[Move, ...] = (
    *_COMMON, one_rope("default", "longrope", "yarn", "su", "linear"), one_rope("longrope", "yarn"), window,
    put(partial_rotary_factor=(0.5, 0.75, 1.0), original_max_position_embeddings=(4, 8, 16)),
)  # fmt: skip
_MODERNBERT_MOVES: tuple[Move, ...] = (
    activation("hidden_activation", "classifier_activation"), stray, local_layers, local_layers, _BERT_LAYERED,
    _BERT_LAYERED, leave_out("max_position_embeddings", "norm_eps", "local_attention"),
    null("rope_scaling", "rope_parameters", "layer_types"),
    put(norm_bias=_BOTH, attention_bias=_BOTH, mlp_bias=_BOTH, classifier_bias=_BOTH, decoder_bias=_BOTH,
        classifier_pooling=("cls", "mean"), norm_eps=(0.01, 1e-12)),
)  # fmt: skip


def _lm(stem: str, base: Base, *moves: Move) -> Drawn:
    return Drawn("decoder", (f"{stem}ForCausalLM",), base, moves)


def _text(stem: str, base: Base, *moves: Move, heads: tuple[str, ...] = _TEXT_HEADS) -> Drawn:
    return Drawn("encoder", tuple(f"{stem}{head}" for head in heads), base, moves or _ENCODER_MOVES)


def _tower(base: Base, *moves: Move, names: tuple[str, ...]) -> Drawn:
    return Drawn("vision", names, base, (*_VISION_MOVES, *moves))


def _pad_1(model_type: str) -> Base:
    return _encoder(model_type, pad_token_id=1)


_DINOV3_BIASES = put(query_bias=_BOTH, key_bias=_BOTH, value_bias=_BOTH, proj_bias=_BOTH, mlp_bias=_BOTH)

FAMILIES: dict[str, Drawn] = {
    "llama": _lm("Llama", _decoder("llama"), *_COMMON, _ROPE, _ROPE, put(attention_bias=_BOTH, mlp_bias=_BOTH)),
    "mistral": _lm("Mistral", _decoder("mistral", sliding_window=3), *_COMMON, _ROPE, window),
    "smollm3": _lm("SmolLM3", _without(_decoder("smollm3"), "head_dim"),
        *_COMMON, _ROPE, window, no_rope, no_rope, put(attention_bias=_BOTH, mlp_bias=_BOTH)),
    "phi3": _lm("Phi3", _without(_decoder("phi3"), "head_dim"), *_PHI3_MOVES),
    "gemma": _lm("Gemma", _decoder("gemma", hidden_act="gelu"),
        *_COMMON, activation("hidden_activation"), _ROPE, put(attention_bias=_BOTH)),
    "gemma2": _lm("Gemma2", _decoder("gemma2", sliding_window=3, query_pre_attn_scalar=7), *_GEMMA_MOVES, _ROPE),
    "gemma3_text": _lm("Gemma3", _gemma3_text, *_GEMMA_MOVES, _LAYERED, _LAYERED, _LAYERED),
    "gemma3": Drawn("decoder", ("Gemma3ForConditionalGeneration",), _gemma3, (*_GEMMA_MOVES, _LAYERED, _LAYERED),
        "text_config"),
    "qwen2": _lm("Qwen2", _without(_decoder("qwen2"), "head_dim"), *_COMMON, _ROPE, window, window),
    "qwen3": _lm("Qwen3", _decoder("qwen3"), *_COMMON, _ROPE, window, window, put(attention_bias=_BOTH)),
    "qwen3_moe": _lm("Qwen3Moe", _decoder("qwen3_moe", **_MOE), *_COMMON, _ROPE, window, routing, routing),
    "qwen3_next": _lm("Qwen3Next", _hybrid("qwen3_next", **_SHARED), *_HYBRID_MOVES, routing),
    "qwen3_5_text": _lm("Qwen3_5", _hybrid("qwen3_5_text"), *_HYBRID_MOVES),
    "qwen3_5_moe_text": _lm("Qwen3_5Moe", _hybrid("qwen3_5_moe_text", **_SHARED), *_HYBRID_MOVES),
    "qwen3_5": Drawn("decoder", ("Qwen3_5ForConditionalGeneration",), _wrapped("qwen3_5", _hybrid("qwen3_5_text")),
        _HYBRID_MOVES, "text_config"),
    "qwen3_5_moe": Drawn("decoder", ("Qwen3_5MoeForConditionalGeneration",),
        _wrapped("qwen3_5_moe", _hybrid("qwen3_5_moe_text", **_SHARED)), _HYBRID_MOVES, "text_config"),
    "bert": _text("Bert", _encoder("bert")),
    "roberta": _text("Roberta", _pad_1("roberta")),
    "xlm-roberta": _text("XLMRoberta", _pad_1("xlm-roberta")),
    "camembert": _text("Camembert", _pad_1("camembert")),
    "mpnet": _text("MPNet", _without(_pad_1("mpnet"), "type_vocab_size")),
    "distilbert": _text("DistilBert", _distilbert, activation("activation"), stray, put(n_heads=(1, 8)),
        leave_out("max_position_embeddings", "activation"), null("activation", "head_dim")),
    "modernbert": _text("ModernBert", _modernbert, *_MODERNBERT_MOVES),
    "nomic_bert": _text("NomicBert", _encoder("nomic_bert", hidden_act="silu", pad_token_id=0, num_attention_heads=2),
        *_ENCODER_MOVES, _ROPE, _ROPE, _ROPE, heads=("Model", "ForMaskedLM")),
    "vit": _tower(_vision("vit"), activation("pooler_act"), put(pooler_output_size=(16, 32)),
        null("pooler_output_size"), names=("ViTModel", "ViTForImageClassification")),
    "dinov2": _tower(_without(_vision("dinov2", mlp_ratio=2), "intermediate_size"), leave_out("mlp_ratio"),
        put(mlp_ratio=(1, 2, 4), use_swiglu_ffn=_BOTH), names=("Dinov2Model",)),
    "dinov2_with_registers": _tower(_without(_vision("dinov2_with_registers", mlp_ratio=2), "intermediate_size"),
        put(num_register_tokens=(0, 1, 3), use_swiglu_ffn=_BOTH), names=("Dinov2WithRegistersModel",)),
    "dinov3_vit": _tower(_vision("dinov3_vit"), _ROPE, _DINOV3_BIASES, put(
        rope_theta=(50.0, 20), num_register_tokens=(0, 2), use_gated_mlp=_BOTH), names=("DINOv3ViTModel",)),
    "clip_vision_model": _tower(_vision("clip_vision_model"), names=("CLIPVisionModel",)),
    "siglip_vision_model": _tower(_vision("siglip_vision_model"), put(vision_use_head=_BOTH),
        names=("SiglipVisionModel",)),
}  # fmt: skip
