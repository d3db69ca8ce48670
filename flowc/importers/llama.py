"""Llama, and its close relatives Mistral and SmolLM3 (HF `*ForCausalLM` of those names)."""

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
from flowc.importers.rope import single


def _layer(config: Config) -> dict[str, Any]:
    layer: dict[str, Any] = {
        "prefix": "model.layers.{i}",
        "activation": config.choice("hidden_act", ACTIVATIONS, "silu"),
    }
    for field in ("attention_bias", "mlp_bias"):
        if config.bool(field, False):
            layer[field] = True
    return layer


@imports("llama")
def llama(config: Config, shapes: Shapes) -> Family:
    """A spec of whole `llama_decoder` layers."""
    config.only("rope_interleaved", False)  # SmolLM2's files say so; the class always turns halves
    config.skip("is_llama_config", "max_sequence_length")
    symbols = decoder_symbols(config)
    return plain_decoder(config, shapes, symbols, repeat({"llama_decoder": _layer(config)}), tied=False)


@imports("mistral")
def mistral(config: Config, shapes: Shapes) -> Family:
    """`llama_decoder` layers with one window, which a configuration without the field has too (4096)."""
    config.only("attention_bias", False)
    config.only("mlp_bias", False)
    symbols, layer = decoder_symbols(config), _layer(config)
    window = config.int("sliding_window", None)
    if window is not None:
        layer["window"] = window
    return plain_decoder(config, shapes, symbols, repeat({"llama_decoder": layer}), tied=False)


@imports("smollm3")
def smollm3(config: Config, shapes: Shapes) -> Family:
    """`llama_decoder` layers, some without rope; a window, where it is in use, is on those.

    `layer_types` alone decides where it is stated: HuggingFace masks sliding layers whatever `use_sliding_window` says.
    """
    symbols, layer = decoder_symbols(config), _layer(config)
    config.skip("max_window_layers")
    count = symbols["layers"]
    interval = config.int("no_rope_layer_interval", 4)
    turns = config.list("no_rope_layers", [int((i + 1) % interval != 0) for i in range(count)])
    if len(turns) < count or any(t not in (0, 1) for t in turns):
        config.refuse("no_rope_layers", f"it must be a 1 (rope) or a 0 (none) for each of the {count} layers")
        turns = [1] * count
    turns = turns[:count]
    window, used = config.int("sliding_window", None), config.bool("use_sliding_window")
    usual = [SLIDING if used and window is not None and not turn else FULL for turn in turns]
    types = layer_types(config, usual)
    per_layer(symbols, layer, "rope", ["rope" if turn else None for turn in turns], "rope")
    per_layer(symbols, layer, "window", windows(config, types, window), None)
    rope = single(config, theta=2000000.0)
    return plain_decoder(config, shapes, symbols, repeat({"llama_decoder": layer}), tied=True, rope=rope)
