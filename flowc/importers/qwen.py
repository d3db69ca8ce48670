"""Qwen2 and Qwen3 (HF `Qwen2ForCausalLM`, `Qwen3ForCausalLM`)."""

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
from flowc.importers.family import Family, Shapes, imports


@imports("qwen2")
def qwen2(config: Config, shapes: Shapes) -> Family:
    """`qwen3_decoder` layers without q/k norm; q, k and v have biases, o has none."""
    symbols = decoder_symbols(config)
    layer = qwen_layer(config, symbols, {"attention_bias": True, "output_bias": False, "qk_norm": False})
    return plain_decoder(config, shapes, symbols, repeat({"qwen3_decoder": layer}), tied=False)


@imports("qwen3")
def qwen3(config: Config, shapes: Shapes) -> Family:
    """`qwen3_decoder` layers; `attention_bias` is on q, k, v and o."""
    symbols = decoder_symbols(config)
    biases = {"attention_bias": True} if config.bool("attention_bias", False) else {}
    layer = qwen_layer(config, symbols, biases)
    return plain_decoder(config, shapes, symbols, repeat({"qwen3_decoder": layer}), tied=False)


def qwen_layer(config: Config, symbols: dict[str, Any], facts: dict[str, Any]) -> dict[str, Any]:
    """The fields of a layer: the window is on the layers from `max_window_layers` on, where it is in use at all."""
    config.only("use_mrope", False)
    layer = {
        "prefix": "model.layers.{i}",
        "activation": config.choice("hidden_act", ACTIVATIONS, "silu"),
        **facts,
    }
    window = config.int("sliding_window", None) if config.bool("use_sliding_window") else None
    first = config.int("max_window_layers", 0)
    config.skip("sliding_window")
    usual = [SLIDING if window is not None and i >= first else FULL for i in range(symbols["layers"])]
    per_layer(symbols, layer, "window", windows(config, layer_types(config, usual), window), None)
    return layer
