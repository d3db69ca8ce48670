"""Vision towers of CLIP and SigLIP (HF `CLIPVisionModel`, `SiglipVisionModel`)."""

from __future__ import annotations

from typing import Any

from flowc.importers.config import Config
from flowc.importers.encoders import prefix_of
from flowc.importers.family import Family, Shapes, imports
from flowc.importers.vision import (
    Images,
    Stages,
    class_of,
    images,
    layers,
    norm,
    plain_ffn,
    positions,
    residual,
    separate_attention,
    symbols_of,
    vision,
)


@imports("clip_vision_model")
def clip_vision(config: Config, shapes: Shapes) -> Family:
    """A norm before the layers; the pooled row is the class token after a last norm that the tokens do not get."""
    class_of(config, "CLIPVisionModel")
    config.skip("projection_dim")
    image, p, symbols = _tower(config, shapes)
    flow: Stages = [
        {"patch_embed": {"weight": f"{p}embeddings.patch_embedding.weight", "bias": False}},
        {"prepend_tokens": {"weight": f"{p}embeddings.class_embedding", "flat": True}},
        positions(f"{p}embeddings.position_embedding.weight", image, 1, flat=True),
        norm(f"{p}pre_layrnorm"),
        _layers(config, p, "quick_gelu"),
        {"output": "last_hidden_state"},
        "cls_token_pool",
        norm(f"{p}post_layernorm"),
        {"output": "pooler_output"},
    ]
    return vision(symbols, image, flow, shapes, ("embeddings.position_ids",))


@imports("siglip_vision_model")
def siglip_vision(config: Config, shapes: Shapes) -> Family:
    """No class token; a learned query attends to the tokens after the last norm, and has an MLP of its own."""
    class_of(config, "SiglipVisionModel")
    config.skip("projection_dim")
    image, p, symbols = _tower(config, shapes)
    flow: Stages = [
        {"patch_embed": {"weight": f"{p}embeddings.patch_embedding.weight"}},
        positions(f"{p}embeddings.position_embedding.weight", image, 0, flat=True),
        _layers(config, p, "gelu_pytorch_tanh"),
        norm(f"{p}post_layernorm"),
    ]
    spare = ["embeddings.position_ids"]
    head = f"{p}head"
    if config.bool("vision_use_head", True):
        own = f"{head}.attention"
        names = {"query": f"{head}.probe", "qkv": f"{own}.in_proj_weight", "out": f"{own}.out_proj.weight"}
        mlp = plain_ffn(config, f"{head}.mlp.fc1", f"{head}.mlp.fc2", default="gelu_pytorch_tanh")
        flow += [
            {"output": "last_hidden_state"},
            {"attention_pool": names},
            *residual(norm(f"{head}.layernorm"), mlp),
            "cls_token_pool",
            {"output": "pooler_output"},
        ]
    else:
        spare += [name for name in shapes if name.startswith(f"{head}.")]
    return vision(symbols, image, flow, shapes, tuple(spare))


def _tower(config: Config, shapes: Shapes) -> tuple[Images, str, dict[str, Any]]:
    image = images(config, square=True)
    if image.patch[0] != image.patch[1]:
        config.refuse("patch_size", "HuggingFace takes one size for both directions")
    return image, prefix_of(shapes, "vision_model"), symbols_of(config, image, config.int("intermediate_size"))


def _layers(config: Config, p: str, default: str) -> dict[str, Any]:
    layer = f"{p}encoder.layers.{{i}}"
    attention = separate_attention(f"{layer}.self_attn", "q_proj", "k_proj", "v_proj", "out_proj")
    mlp = plain_ffn(config, f"{layer}.mlp.fc1", f"{layer}.mlp.fc2", default=default)
    return layers([norm(f"{layer}.layer_norm1"), attention], [norm(f"{layer}.layer_norm2"), mlp])
