"""Qwen3-Next and Qwen3.5 text models: gated DeltaNet layers among full attention layers."""

from __future__ import annotations

from typing import Any

from flowc.importers.config import Config
from flowc.importers.decoders import ACTIVATIONS, FULL, embedding, head, repeat, spare_tensors, special_tokens
from flowc.importers.defaults import CLASS_DEFAULTS
from flowc.importers.family import Family, Shapes, imports
from flowc.importers.rope import rope_stage, single

LINEAR = "linear_attention"
_ACTIVATIONS = {name: ours for name, ours in ACTIVATIONS.items() if ours != "sigmoid"}
"""What makes a zero of a zero: with another, HuggingFace's numbers depend on how much padding stands before a row."""
_IMAGES = ("vision_config", "image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")


@imports("qwen3_next")
def qwen3_next(config: Config, shapes: Shapes) -> Family:
    """Projections of the linear layers grouped by key head; layers with experts, but for `mlp_only_layers`."""
    layers, step = config.int("num_hidden_layers"), config.int("decoder_sparse_step")
    dense = config.list("mlp_only_layers", [])
    experts = config.int("num_experts")
    sparse = [experts > 0 and i not in dense and (i + 1) % step == 0 for i in range(layers)]
    config.only("architectures", ["Qwen3NextForCausalLM"])
    config.only("use_sliding_window", False)
    config.skip("max_window_layers", "sliding_window")
    return _hybrid(config, shapes, sparse, top=config, normalise=config.bool("norm_topk_prob"), grouped=True)


@imports("qwen3_5_text")
def qwen3_5(config: Config, shapes: Shapes) -> Family:
    """Dense layers, projections one by one."""
    config.only("architectures", ["Qwen3_5ForCausalLM"])
    return _qwen3_5(config, shapes, config, "model.", moe=False)


@imports("qwen3_5_moe_text")
def qwen3_5_moe(config: Config, shapes: Shapes) -> Family:
    """Experts in every layer, the weights of the chosen ones always brought to a sum of one."""
    config.only("architectures", ["Qwen3_5MoeForCausalLM"])
    return _qwen3_5(config, shapes, config, "model.", moe=True)


@imports("qwen3_5", "qwen3_5_moe")
def qwen3_5_text_of(config: Config, shapes: Shapes) -> Family:
    """The language model inside a checkpoint for images too; what is for images alone is left out."""
    moe = config.text("model_type") == "qwen3_5_moe"
    config.only("architectures", [f"Qwen3_5{'Moe' if moe else ''}ForConditionalGeneration"])
    config.skip("text_config", *_IMAGES)
    text, model_type = config.part("text_config"), "qwen3_5_moe_text" if moe else "qwen3_5_text"
    text.assume(CLASS_DEFAULTS[model_type])
    text.only("model_type", model_type)
    text.skip("tie_word_embeddings")  # the whole model's field decides
    family = _qwen3_5(text, shapes, config, "model.language_model.", moe=moe)
    text.finish()
    family.allow_unused.extend(["model.visual.*"] if any(n.startswith("model.visual.") for n in shapes) else [])
    return family


def _qwen3_5(config: Config, shapes: Shapes, top: Config, root: str, *, moe: bool) -> Family:
    config.only("attn_output_gate", True)
    config.only("mamba_ssm_dtype", "float32")
    config.only("mlp_only_layers", [])
    config.skip("mtp_num_hidden_layers", "mtp_use_dedicated_embeddings")
    return _hybrid(config, shapes, [moe] * config.int("num_hidden_layers"), top=top, root=root)


def _hybrid(
    config: Config, shapes: Shapes, sparse: list[bool], *, top: Config, root: str = "model.",
    normalise: bool = True, grouped: bool = False,
) -> Family:  # fmt: skip
    """Layers of two mixers and two kinds of MLP, each around pre-norms whose gain is 1 + weight.

    `top` says whether the head is tied; `root` stands before the names of all tensors but the head's.
    """
    layer = f"{root}layers.{{i}}"
    types = _layer_types(config, len(sparse))
    activation = config.choice("hidden_act", _ACTIVATIONS, "silu")
    symbols: dict[str, Any] = {
        "hidden": config.int("hidden_size"),
        "layers": len(sparse),
        "vocab": config.int("vocab_size"),
        "norm_eps": config.float("rms_norm_eps"),
        "context_length": config.int("max_position_embeddings"),
    }
    special_tokens(config, symbols)
    body: list[Any] = ["residual_save", {"gemma_rms_norm": {"weight": f"{layer}.input_layernorm.weight"}}]
    body += _by_layer(symbols, "layer_types", types, {
        LINEAR: {"gated_delta_net": _delta_net(config, symbols, layer, LINEAR in types, activation, grouped)},
        FULL: {"gated_attention": _attention(config, symbols, layer, FULL in types)},
    })  # fmt: skip
    body += ["residual_add", "residual_save"]
    body.append({"gemma_rms_norm": {"weight": f"{layer}.post_attention_layernorm.weight"}})
    body += _by_layer(symbols, "mlp_types", ["experts" if s else "dense" for s in sparse], {
        "experts": {"moe": _experts(config, shapes, layer, any(sparse), activation, normalise)},
        "dense": {"swiglu": _mlp(config, symbols, layer, not all(sparse), activation)},
    })  # fmt: skip
    body.append("residual_add")
    unused = [*spare_tensors(shapes), *(["mtp.*"] if any(n.startswith("mtp.") for n in shapes) else [])]
    rope = _rope(config)
    flow: list[Any] = [
        embedding(root),
        *([{"rope_tables": rope}] if FULL in types else []),
        repeat(*body),
        {"gemma_rms_norm": {"weight": f"{root}norm.weight"}},
        "gather_last_token",
        head(top, shapes, tied=False, allow_unused=unused),
    ]
    return Family(symbols, flow, allow_unused=unused)


def _layer_types(config: Config, layers: int) -> list[str]:
    interval = config.int("full_attention_interval", 4)
    usual = [LINEAR if (i + 1) % interval else FULL for i in range(layers)]
    found = config.list("layer_types", usual)
    if len(found) != layers or not set(found) <= {LINEAR, FULL}:
        config.refuse("layer_types", f"flowc needs {layers} entries of {LINEAR} and {FULL}")
        return usual
    return found


def _by_layer(symbols: dict[str, Any], name: str, kinds: list[str], stages: dict[str, Any]) -> list[Any]:
    """The stage of each layer's kind: itself where all layers agree, else a choice by a list in `model:`."""
    used = sorted(set(kinds), key=list(stages).index)
    if len(used) == 1:
        return [stages[used[0]]]
    symbols[name] = kinds
    first, second = used
    choice = {"value": f"${name}[i]", "equals": first, "then": [stages[first]], "otherwise": [stages[second]]}
    return [{"when": choice}]


def _delta_net(
    config: Config, symbols: dict[str, Any], layer: str, used: bool, activation: str, grouped: bool
) -> dict[str, Any]:
    sizes = {"key_heads": "linear_num_key_heads", "value_heads": "linear_num_value_heads",
             "key_dim": "linear_key_head_dim", "value_dim": "linear_value_head_dim",
             "conv_kernel": "linear_conv_kernel_dim"}  # fmt: skip
    numbers = {name: config.int(field) for name, field in sizes.items()}
    if numbers["conv_kernel"] < 2:
        config.refuse("linear_conv_kernel_dim", "the convolution needs two taps or more")
    if used:
        symbols.update(numbers)
    stage: dict[str, Any] = {"prefix": f"{layer}.linear_attn", "qk_norm_eps": 1e-6, "activation": activation}
    return {**stage, "grouped": True} if grouped else stage


def _attention(config: Config, symbols: dict[str, Any], layer: str, used: bool) -> dict[str, Any]:
    sizes = {"heads": "num_attention_heads", "kv_heads": "num_key_value_heads", "head_dim": "head_dim"}
    numbers = {name: config.int(field) for name, field in sizes.items()}
    if used:
        symbols.update(numbers)
    stage = {"prefix": f"{layer}.self_attn"}
    return {**stage, "attention_bias": True} if config.bool("attention_bias", False) else stage


def _rope(config: Config) -> dict[str, Any]:
    """A quarter of a head turns, unless a null says that all of it does."""
    return rope_stage(single(config, partial=0.25), config.int("head_dim"), turns_part=True)


def _mlp(config: Config, symbols: dict[str, Any], layer: str, used: bool, activation: str) -> dict[str, Any]:
    if used:
        symbols["ffn"] = config.int("intermediate_size")
    config.skip("intermediate_size")
    return {"prefix": f"{layer}.mlp", "activation": activation}


def _experts(
    config: Config, shapes: Shapes, layer: str, used: bool, activation: str, normalise: bool
) -> dict[str, Any]:
    if not used:
        config.skip("num_experts", "num_experts_per_tok", "moe_intermediate_size", "shared_expert_intermediate_size")
        return {}
    stage: dict[str, Any] = {
        "prefix": f"{layer}.mlp", "experts": config.int("num_experts"), "top": config.int("num_experts_per_tok"),
        "moe_ffn": config.int("moe_intermediate_size"), "renormalise": normalise,
        "shared_ffn": config.int("shared_expert_intermediate_size"), "activation": activation,
    }  # fmt: skip
    fused = any(name.endswith(".mlp.experts.gate_up_proj") for name in shapes)
    return {**stage, "fused": True} if fused else stage
