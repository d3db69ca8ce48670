"""Nomic Vision, which shares its model type and the style of its configuration with the text model."""

from __future__ import annotations

from typing import Any

from flowc.importers.config import Config
from flowc.importers.family import Family, Shapes
from flowc.importers.vision import Images, Stages, class_of, images, layers, norm, pair_of, residual, symbols_of, vision

_NAMES = {"hidden": "n_embd", "layers": "n_layer", "heads": "n_head", "eps": "layer_norm_epsilon"}
_GATES = {"swiglu": "silu", "geglu": "gelu", "glu": "sigmoid"}
_PLAIN = {"gelu": "gelu"}
_MULTIPLE = 256
"""The width of a gated MLP is rounded up to a multiple of this."""


_EMBEDDING: Stages = [
    {"load_stream": "selected"}, "cls_token_pool", {"store_stream": "selected"},
    {"load_stream": "trunk"}, "cls_token_pool", {"add_stream": "selected"}, {"output": "image_embedding"},
]  # fmt: skip
"""The class token and the selector's MLP: the published code adds the MLP to the tokens, not to the pooled row."""


def is_nomic_vision(config: Config) -> bool:
    """Whether a configuration of model type nomic_bert is that of the vision model."""
    return config.architecture == "NomicVisionModel" or (not config.architecture and "img_size" in config.data)


def nomic_vision(config: Config, shapes: Shapes) -> Family:
    """Pre-norm layers over class token and patches; no last norm; a learned query pools all tokens."""
    class_of(config, "NomicVisionModel")
    _refuse(config)
    image = images(config, size="img_size")
    if any(size % patch for size, patch in zip(image.size, image.patch, strict=True)):
        config.refuse("img_size", "it must be a multiple of `patch_size`")
    function = config.choice("activation_function", {**_GATES, **_PLAIN}, "gelu_new")
    gated = config.get("activation_function") in _GATES
    symbols = symbols_of(config, image, _ffn(config, gated), _NAMES)
    tokens, leading = _tokens(config, image)
    layer, bias = "layers.{i}", config.bool("qkv_proj_bias", True)
    attention: dict[str, Any] = {"qkv": f"{layer}.attn.Wqkv.weight", "out": f"{layer}.attn.out_proj.weight"}
    attention.update({"bias": bias, "out_bias": bias})
    rope: Stages = []
    if config.bool("use_rotary_pos_emb", False):
        rope = [{"patch_rope": _rope(config, leading, symbols["head_dim"])}]
        attention["rope"] = "rope"
    config.skip("ref_feat_shape")
    biases = config.bool("mlp_fc1_bias", True), config.bool("mlp_fc2_bias", True)
    if not gated and biases[0] != biases[1]:
        config.refuse("mlp_fc2_bias", "in a plain MLP it must be as `mlp_fc1_bias`")
    normed = gated and config.bool("norm_mlp", False)
    config.skip("norm_mlp")
    pool = {"query": "selector.attn.latent", "q": "selector.attn.Wq.weight", "kv": "selector.attn.Wkv.weight"}
    pool["out"] = "selector.attn.out_proj.weight"
    flow: Stages = [
        {"patch_embed": _projection(config)},
        *tokens,
        *rope,
        layers(
            [norm(f"{layer}.norm1"), {"vit_self_attn": attention}],
            [norm(f"{layer}.norm2"), _mlp(f"{layer}.mlp", gated, function, biases, norm=normed)],
        ),
        {"output": "trunk_hidden_state"},
        {"cls_token_pool": {"output": "cls_pooled"}},
        {"store_stream": "trunk"},
        {"attention_pool": {**pool, "bias": bias, "out_bias": bias}},
        *residual(norm("selector.norm1"), _mlp("selector.mlp", gated, function, biases), {"store_stream": "selected"}),
        {"output": "last_hidden_state"},
        *_EMBEDDING,
    ]
    return vision(symbols, image, flow, shapes, ("mask_token",))


def _refuse(config: Config) -> None:
    """Refuse what the published model does otherwise with these fields, and pass over what changes no number."""
    config.only("prenorm", True)
    for field in (
        "causal", "use_rms_norm", "parallel_block", "sinusoidal_pos_embedding", "layer_scale", "prepre_layernom",
        "scale_attn_by_inverse_layer_idx",
    ):  # fmt: skip
        config.only(field, False)
    config.only("scale_attn_weights", True)
    config.only("rotary_emb_fraction", 0, 0.0)
    config.only("num_heads_kv", config.get("n_head"), why="key heads that several query heads share are not supported")
    config.only("global_pool", why="the tokens are pooled by the selector alone")
    config.only("hidden_features_scaling_factor", 1.0)
    config.skip(
        "attn_pdrop", "dense_seq_output", "drop_path_rate", "fused_bias_fc", "fused_dropout_add_ln",
        "layer_scale_init", "mask_token", "max_position_embeddings", "max_trained_positions", "n_positions",
        "pad_vocab_size_multiple", "parallel_block_tied_norm", "patch_dropout", "reorder_and_upcast_attn",
        "rotary_emb_base", "rotary_emb_interleaved", "rotary_emb_scale_base", "rotary_scaling_factor",
        "summary_activation", "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj",
        "tie_word_embeddings", "type_vocab_size", "use_flash_attn", "use_xentropy", "vocab_size",
    )  # fmt: skip


def _ffn(config: Config, gated: bool) -> int:
    hidden = config.int("n_embd")
    width = config.int("n_inner", int(8 * hidden / 3) if gated else 4 * hidden)
    return -(-width // _MULTIPLE) * _MULTIPLE if gated else width


def _projection(config: Config) -> dict[str, Any]:
    bias = config.bool("patch_embed_bias", True)
    return {"weight": "embeddings.proj.weight", "convolution": False, "bias": bias}


def _tokens(config: Config, image: Images) -> tuple[Stages, int]:
    """The stages from patches to tokens with positions, and how many tokens stand in front of the patches."""
    config.only("no_cls_token", False)
    registers = config.int("register_tokens", 0)
    leading = 1 + registers
    stage = {"weight": "embeddings.reg_token", "count": registers}
    front: Stages = [{"prepend_tokens": stage}] if registers else []
    front.append({"prepend_tokens": {"weight": "embeddings.cls_token"}})
    learned, patches_only = config.bool("learned_pos_embedding", False), config.bool("no_embed_class", False)
    if not config.bool("use_pos_embed", True):
        return front, leading
    if learned and image.size[0] != image.size[1]:
        config.refuse("img_size", "with learned positions, images that are not square are interpolated")
    rows = 0 if learned and registers else 1  # positions beyond those of the patches
    if rows != (0 if patches_only else leading):
        field = "no_embed_class" if patches_only else "register_tokens"
        config.refuse(field, "the positions are not as many as the tokens that they are added to")
    positions: Stages = [{"add_positions": "embeddings.pos_embed"}]
    return (positions + front if patches_only else front + positions), leading


def _rope(config: Config, leading: int, head_dim: int) -> dict[str, Any]:
    """The rope's stage: its base is fixed in the published code, which takes one leading token at least."""
    if leading != max(config.int("register_tokens", 0), 1):
        config.refuse("register_tokens", "the published rope does not fit class token and registers together")
    if head_dim % 4:
        config.refuse("n_head", f"a head of {head_dim} channels has no rope in two dimensions")
    rope: dict[str, Any] = {"theta": 10000.0, "style": "grid", "leading": leading}
    if config.has("ref_feat_shape"):
        rope["reference_grid"] = list(pair_of(config, "ref_feat_shape"))
    return rope


def _mlp(prefix: str, gated: bool, activation: str, biases: tuple[bool, bool], norm: bool = False) -> dict[str, Any]:
    """A gated MLP, normed or not; or a plain one."""
    first, second = biases
    if gated:
        facts: dict[str, Any] = {"norm": True, "eps": 1e-5} if norm else {"norm": False}
        facts.update({"activation": activation, "bias": first, "out_bias": second})
        return {"vision_swiglu_ffn": {"prefix": prefix, **facts}}
    names = {"intermediate": f"{prefix}.fc1.weight", "output": f"{prefix}.fc2.weight"}
    return {"gelu_ffn": {**names, "activation": activation, "bias": first}}
