"""Gemma 1, 2 and 3, the text models (HF `GemmaForCausalLM`, `Gemma2ForCausalLM`, `Gemma3ForCausalLM`).

Of a multimodal Gemma 3 the language model is imported: on text alone it computes what the whole does.
"""

from __future__ import annotations

from typing import Any

from flowc.importers.config import Config
from flowc.importers.decoders import (
    ACTIVATIONS,
    FULL,
    SLIDING,
    decoder_symbols,
    layer_types,
    per_layer,
    plain_decoder,
    repeat,
    windows,
)
from flowc.importers.defaults import CLASS_DEFAULTS
from flowc.importers.family import Family, Shapes, imports
from flowc.importers.rope import by_layer, rope_stage

_ROOTS = ("model.language_model.", "language_model.model.")
_IMAGES = (
    "vision_config", "mm_tokens_per_image", "boi_token_index", "eoi_token_index", "image_token_index", "boi_token_id",
    "eoi_token_id", "image_token_id",
)  # fmt: skip


@imports("gemma")
def gemma(config: Config, shapes: Shapes) -> Family:
    """`gemma_decoder` layers of the first style. The tanh form of GELU stands behind the old name `gelu` too."""
    symbols = decoder_symbols(config)
    config.skip("hidden_activation")  # hub files have it; only `hidden_act` is read
    layer = _layer(config, "gemma", config.choice("hidden_act", {**ACTIVATIONS, "gelu": "gelu_tanh"}))
    return plain_decoder(config, shapes, symbols, repeat({"gemma_decoder": layer}), tied=True, gemma=True)


@imports("gemma2")
def gemma2(config: Config, shapes: Shapes) -> Family:
    """Every other layer, from the first, sees a window; scores and logits are capped."""
    config.skip("hidden_act", "sliding_window_size")  # hub files have them; only `hidden_activation` is read
    symbols = decoder_symbols(config)
    layer = _layer(config, "gemma2", config.choice("hidden_activation", ACTIVATIONS))
    layer["scale"] = _scale(config)
    cap = config.float("attn_logit_softcapping", None)
    if cap is not None:
        layer["softcap"] = cap
    types = layer_types(config, [FULL if i % 2 else SLIDING for i in range(symbols["layers"])])
    per_layer(symbols, layer, "window", windows(config, types, config.int("sliding_window", None)), None)
    softcap = config.float("final_logit_softcapping", None)
    layers = repeat({"gemma_decoder": layer})
    return plain_decoder(config, shapes, symbols, layers, tied=True, gemma=True, softcap=softcap)


@imports("gemma3_text")
def gemma3_text(config: Config, shapes: Shapes) -> Family:
    """Local layers with a window and an unscaled rope of their own; every sixth, or as stated, is global."""
    return _gemma3(config, shapes, "model.", config.float("final_logit_softcapping", None))


@imports("gemma3")
def gemma3(config: Config, shapes: Shapes) -> Family:
    """The language model inside a multimodal checkpoint; its vision tower is left out."""
    config.skip("text_config", *_IMAGES)
    config.only("architectures", ["Gemma3ForConditionalGeneration"])
    config.only("tie_word_embeddings", True)
    text = config.part("text_config")
    text.assume(CLASS_DEFAULTS["gemma3_text"])
    text.only("model_type", "gemma3_text")
    root = next((r for r in _ROOTS if f"{r}embed_tokens.weight" in shapes), "model.")
    text.skip("final_logit_softcapping")  # Gemma3ForConditionalGeneration does not cap its logits
    family = _gemma3(text, shapes, root, None)
    text.finish()
    family.allow_unused.extend(sorted({_image_part(name) + ".*" for name in shapes} - {".*"}))
    return family


def _image_part(name: str) -> str:
    """The part of the model for images that a tensor belongs to; empty for the others."""
    parts = name.split(".")
    found = next((i for i, part in enumerate(parts[:2]) if part in ("vision_tower", "multi_modal_projector")), None)
    return "" if found is None else ".".join(parts[: found + 1])


def _layer(config: Config, style: str, activation: str, root: str = "model.") -> dict[str, Any]:
    config.only("use_bidirectional_attention", False)
    layer = {"prefix": f"{root}layers.{{i}}", "style": style, "activation": activation}
    return {**layer, "attention_bias": True} if config.bool("attention_bias", False) else layer


def _scale(config: Config) -> float:
    return config.float("query_pre_attn_scalar") ** -0.5


def _gemma3(config: Config, shapes: Shapes, root: str, softcap: float | None) -> Family:
    config.skip("attn_logit_softcapping")  # Gemma3Attention keeps it and does not use it
    # A model without local or without global layers has no use for the other rope.
    config.skip(
        "rope_parameters", "rope_theta", "rope_scaling", "rope_local_base_freq", "original_max_position_embeddings",
        "partial_rotary_factor",
    )  # fmt: skip
    symbols = decoder_symbols(config)
    layer = _layer(config, "gemma3", config.choice("hidden_activation", ACTIVATIONS), root)
    layer["scale"] = _scale(config)
    pattern = config.int("sliding_window_pattern", 6)
    count = symbols["layers"]
    types = layer_types(config, [SLIDING if (i + 1) % pattern else FULL for i in range(count)])
    per_layer(symbols, layer, "window", windows(config, types, config.int("sliding_window", None)), None)
    per_layer(symbols, layer, "rope", ["local" if t == SLIDING else "global" for t in types], "rope")
    layers = repeat({"gemma_decoder": layer})
    ropes = [_rope(config, t, symbols["head_dim"]) for t in (SLIDING, FULL) if t in types]
    return plain_decoder(
        config, shapes, symbols, layers, tied=True, gemma=True, softcap=softcap, root=root, ropes=ropes
    )  # fmt: skip


def _rope(config: Config, layer_type: str, head_dim: int) -> dict[str, Any]:
    """The rope of a layer type. `rope_scaling` is the global layers' alone."""
    if layer_type == SLIDING:
        found = by_layer(config, SLIDING, base="rope_local_base_freq", theta=10000.0, scaled=False)
        return rope_stage(found, head_dim, name="local")
    return rope_stage(by_layer(config, FULL, base="rope_theta", theta=1000000.0, scaled=True), head_dim, name="global")
