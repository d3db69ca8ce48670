"""Phi-3, Phi-3.5 and Phi-4-mini (HF `Phi3ForCausalLM`)."""

from __future__ import annotations

from typing import Any

from flowc.importers.config import Config
from flowc.importers.decoders import ACTIVATIONS, decoder_symbols, plain_decoder, repeat
from flowc.importers.family import Family, Shapes, imports
from flowc.importers.rope import single

_RENAMED = {"su": "longrope", "yarn": "longrope"}
"""Types of rope that the class takes for longrope."""


@imports("phi3")
def phi3(config: Config, shapes: Shapes) -> Family:
    """`phi3_decoder` layers; a window, where one is given, is on all of them."""
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
    rope = single(config, partial=1.0, renamed=_RENAMED)
    if rope.kind not in ("default", "longrope"):
        rope.refuse("the class takes longrope alone (and `su` and `yarn` for it)")
    layers = repeat({"phi3_decoder": layer})
    return plain_decoder(config, shapes, symbols, layers, tied=False, rope=rope, partial=True)
