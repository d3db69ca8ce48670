"""Phi-3, Phi-3.5 and Phi-4-mini (HF `Phi3ForCausalLM`)."""

from __future__ import annotations

from typing import Any

from flowc.importers.config import Config
from flowc.importers.decoders import ACTIVATIONS, decoder_symbols, plain_decoder, repeat
from flowc.importers.family import Family, Shapes, imports


@imports("phi3")
def phi3(config: Config, shapes: Shapes) -> Family:
    """`phi3_decoder` layers; a window, where one is given, is on all of them."""
    config.assume({"original_max_position_embeddings": 4096, "rms_norm_eps": 1e-5})
    config.skip("original_max_position_embeddings")
    for field in ("attention_bias", "mlp_bias", "lm_head_bias"):  # the files of Phi-4-mini say so; the class has none
        config.only(field, False)
    config.only("full_attn_mod", 1)
    config.only("interpolate_factor", 1)
    symbols = decoder_symbols(config)
    layer: dict[str, Any] = {
        "prefix": "model.layers.{i}",
        "activation": config.choice("hidden_act", ACTIVATIONS, "silu"),
    }
    window = config.int("sliding_window", None)
    if window is not None:
        layer["window"] = window
    return plain_decoder(config, shapes, symbols, repeat({"phi3_decoder": layer}), tied=False, partial=True)
