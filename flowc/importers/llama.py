"""Llama (HF `LlamaForCausalLM`)."""

from __future__ import annotations

from typing import Any

from flowc.importers.config import Config
from flowc.importers.decoders import ACTIVATIONS, decoder_symbols, head, spare_tensors
from flowc.importers.family import Family, Shapes, imports
from flowc.importers.rope import rope_stage


@imports("llama")
def llama(config: Config, shapes: Shapes) -> Family:
    """A spec of whole `llama_decoder` layers."""
    symbols = decoder_symbols(config)
    layer: dict[str, Any] = {
        "prefix": "model.layers.{i}",
        "activation": config.choice("hidden_act", ACTIVATIONS, "silu"),
    }
    for field in ("attention_bias", "mlp_bias"):
        if config.bool(field, False):
            layer[field] = True
    unused = spare_tensors(shapes)
    flow: list[Any] = [
        {"embed": {"weight": "model.embed_tokens.weight"}},
        {"rope_tables": rope_stage(config, symbols["head_dim"])},
        {"repeat": {"count": "$layers", "body": [{"llama_decoder": layer}]}},
        {"rms_norm": {"weight": "model.norm.weight"}},
        "gather_last_token",
        head(config, shapes, tied=False, allow_unused=unused),
    ]
    return Family(symbols, flow, allow_unused=unused)
