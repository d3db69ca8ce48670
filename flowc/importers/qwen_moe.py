"""Qwen3-MoE (HF `Qwen3MoeForCausalLM`)."""

from __future__ import annotations

from typing import Any

from flowc.importers.config import Config
from flowc.importers.decoders import ACTIVATIONS, decoder_symbols, plain_decoder, repeat
from flowc.importers.family import Family, Shapes, imports


def expert_symbols(config: Config) -> dict[str, Any]:
    """Sizes of a mixture of experts; version 5 of transformers writes `num_local_experts`."""
    name = "num_local_experts" if config.has("num_local_experts") else "num_experts"
    config.skip("num_local_experts", "num_experts")
    return {
        "experts": config.int(name),
        "experts_per_token": config.int("num_experts_per_tok"),
        "moe_ffn": config.int("moe_intermediate_size"),
    }


def fused_on_disk(shapes: Shapes) -> bool:
    """Whether the checkpoint stacks the experts in two tensors a layer."""
    return any(name.endswith(".experts.gate_up_proj") for name in shapes)


def sparse_layers(config: Config, count: int, experts: int) -> list[bool]:
    """Which layers have experts; the others have one MLP of `intermediate_size`."""
    dense = config.list("mlp_only_layers", [])
    step = config.int("decoder_sparse_step", 1)
    return [experts > 0 and i not in dense and (i + 1) % step == 0 for i in range(count)]


@imports("qwen3_moe")
def qwen3_moe(config: Config, shapes: Shapes) -> Family:
    """`qwen3_moe_decoder` layers, and `qwen3_decoder` ones where the configuration says so."""
    config.skip("max_window_layers", "sliding_window")
    config.only("qkv_bias", False)  # Qwen3-Coder's files say these
    config.only("use_qk_norm", True)
    config.only("shared_expert_intermediate_size", 0)
    symbols = {**decoder_symbols(config), **expert_symbols(config)}
    biases = {"attention_bias": True} if config.bool("attention_bias", False) else {}
    activation = config.choice("hidden_act", ACTIVATIONS)
    layer: dict[str, Any] = {"prefix": "model.layers.{i}", "activation": activation, **biases}
    if config.bool("use_sliding_window") and config.has("sliding_window"):
        layer["window"] = config.int("sliding_window")
    sparse = sparse_layers(config, symbols["layers"], symbols["experts"])
    routed = {"renormalise": config.bool("norm_topk_prob")}
    if fused_on_disk(shapes):
        routed["fused"] = True
    dense_layer, moe_layer = {"qwen3_decoder": layer}, {"qwen3_moe_decoder": {**layer, **routed}}
    if all(sparse):
        del symbols["ffn"]
        body: dict[str, Any] = moe_layer
    elif not any(sparse):
        for name in ("experts", "experts_per_token", "moe_ffn"):
            del symbols[name]
        body = dense_layer
    else:
        symbols["sparse"] = sparse
        body = {"when": {"value": "$sparse[i]", "then": [moe_layer], "otherwise": [dense_layer]}}
    return plain_decoder(config, shapes, symbols, repeat(body), tied=False)
