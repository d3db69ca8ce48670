"""ViT, DINOv2 and DINOv3 (HF `ViTModel`, `Dinov2Model`, `Dinov2WithRegistersModel`, `DINOv3ViTModel`)."""

from __future__ import annotations

from typing import Any

from flowc.importers.config import Config
from flowc.importers.encoders import activation, prefix_of
from flowc.importers.family import Family, Shapes, imports
from flowc.importers.vision import (
    BACKBONE,
    TRAINING,
    Stages,
    class_of,
    images,
    layers,
    norm,
    plain_ffn,
    positions,
    separate_attention,
    symbols_of,
    vision,
)


@imports("vit")
def vit(config: Config, shapes: Shapes) -> Family:
    """Pre-norm layers, a last norm, and the tanh pooler if its weight is there, or a classifier of the class token."""
    classifier = class_of(config, "ViTModel", "ViTForImageClassification") == "ViTForImageClassification"
    image, p = images(config), prefix_of(shapes, "vit")
    symbols = symbols_of(config, image, config.int("intermediate_size"), head_dim=config.int("head_dim", None))
    layer, bias = f"{p}encoder.layer.{{i}}", None if config.bool("qkv_bias", True) else False
    flow: Stages = [
        *_embeddings(f"{p}embeddings", "patch_embeddings.projection"),
        positions(f"{p}embeddings.position_embeddings", image, 1),
        layers(
            [norm(f"{layer}.layernorm_before"), _bert_attention(layer, bias=bias)],
            [
                norm(f"{layer}.layernorm_after"),
                plain_ffn(config, f"{layer}.intermediate.dense", f"{layer}.output.dense"),
            ],
        ),
        norm(f"{p}layernorm"),
    ]
    spare = ("mask_token",)
    pooler: dict[str, Any] = {
        "weight": f"{p}pooler.dense.weight",
        "activation": activation(config, "pooler_act", "tanh"),
    }
    size = config.int("pooler_output_size", symbols["hidden"])
    if size != symbols["hidden"]:
        pooler["size"] = size
    if classifier:
        head = {"linear": {"weight": "classifier.weight", "bias": True}}
        flow += [{"output": "last_hidden_state"}, "cls_token_pool", head]
        spare += ("pooler.dense.weight", "pooler.dense.bias")
    else:
        if pooler["weight"] in shapes:
            flow.append({"pooler": {**pooler, "output": "pooler_output"}})
        spare += ("classifier.weight", "classifier.bias")
    return vision(symbols, image, flow, shapes, spare, "logits" if classifier else None)


def _embeddings(prefix: str, projection: str) -> Stages:
    return [
        {"patch_embed": {"weight": f"{prefix}.{projection}.weight"}},
        {"prepend_tokens": {"weight": f"{prefix}.cls_token"}},
    ]


def _bert_attention(layer: str, **facts: Any) -> dict[str, Any]:
    own = "attention.attention"
    return separate_attention(layer, f"{own}.query", f"{own}.key", f"{own}.value", "attention.output.dense", **facts)


@imports("dinov2")
def dinov2(config: Config, shapes: Shapes) -> Family:
    """Layer scales; GELU or packed SwiGLU; the pooled row is the class token after the last norm."""
    class_of(config, "Dinov2Model")
    return _dinov2(config, shapes, prefix_of(shapes, "dinov2"))


@imports("dinov2_with_registers")
def dinov2_with_registers(config: Config, shapes: Shapes) -> Family:
    """DINOv2 with register tokens, which get no position, between the class token and the patches."""
    class_of(config, "Dinov2WithRegistersModel")
    config.only("interpolate_antialias", True)  # as its files say; the class has both fixed
    config.only("interpolate_offset", 0.0)
    prefix = prefix_of(shapes, "dinov2_with_registers")
    return _dinov2(config, shapes, prefix, config.int("num_register_tokens", 4))


def _dinov2(config: Config, shapes: Shapes, p: str, registers: int | None = None) -> Family:
    config.skip(*TRAINING, *BACKBONE)
    image, layer = images(config, square=True), f"{p}encoder.layer.{{i}}"
    ffn = int(config.int("hidden_size") * config.float("mlp_ratio"))
    if config.bool("use_swiglu_ffn", False):
        ffn = (int(ffn * 2 / 3) + 7) // 8 * 8
        names = {"input": f"{layer}.mlp.weights_in.weight", "output": f"{layer}.mlp.weights_out.weight"}
        mlp: dict[str, Any] = {"packed_swiglu": names}
        config.skip("hidden_act")
    else:
        mlp = plain_ffn(config, f"{layer}.mlp.fc1", f"{layer}.mlp.fc2")
    bias = None if config.bool("qkv_bias", True) else False
    antialias = {"antialias": True} if registers is not None else {}
    flow: Stages = [
        *_embeddings(f"{p}embeddings", "patch_embeddings.projection"),
        positions(f"{p}embeddings.position_embeddings", image, 1, **antialias),
        *_registers(f"{p}embeddings", registers or 0),
        layers(
            [norm(f"{layer}.norm1"), _bert_attention(layer, bias=bias), _scale(layer, 1)],
            [norm(f"{layer}.norm2"), mlp, _scale(layer, 2)],
        ),
        norm(f"{p}layernorm"),
        {"cls_token_pool": {"output": "pooler_output"}},
    ]
    symbols = symbols_of(config, image, ffn, head_dim=config.int("head_dim", None))
    return vision(symbols, image, flow, shapes, _spare(registers))


def _spare(registers: int | None) -> tuple[str, ...]:
    """What HuggingFace leaves aside too; a tensor of no registers is in its files all the same."""
    return ("mask_token", "classifier.weight", "classifier.bias", *(() if registers else ("register_tokens",)))


def _registers(prefix: str, count: int) -> Stages:
    stage = {"weight": f"{prefix}.register_tokens", "count": count, "after": 1}
    return [{"prepend_tokens": stage}] if count else []


def _scale(layer: str, number: int) -> dict[str, Any]:
    return {"layer_scale": f"{layer}.layer_scale{number}.lambda1"}


@imports("dinov3_vit")
def dinov3_vit(config: Config, shapes: Shapes) -> Family:
    """A rope over rows and columns in place of learned positions, for images of any size; plain or gated MLP."""
    class_of(config, "DINOv3ViTModel")
    config.skip(*TRAINING, *BACKBONE)
    image = images(config, open=True)
    symbols = symbols_of(config, image, config.int("intermediate_size"))
    if symbols["head_dim"] % 4:
        config.refuse("num_attention_heads", f"a head of {symbols['head_dim']} channels has no rope in two dimensions")
    registers, layer = config.int("num_register_tokens", 0), f"{prefix_of(shapes, 'model')}layer.{{i}}"
    bias, query = config.bool("mlp_bias", True), config.bool("query_bias", True)
    biases = {"bias": query, "key_bias": config.bool("key_bias", False), "value_bias": config.bool("value_bias", True)}
    attention = separate_attention(
        f"{layer}.attention", "q_proj", "k_proj", "v_proj", "o_proj",
        **biases, out_bias=config.bool("proj_bias", True), rope="rope",
    )  # fmt: skip
    if config.bool("use_gated_mlp", False):
        gate = activation(config, "hidden_act")
        mlp: dict[str, Any] = {"swiglu": {"prefix": f"{layer}.mlp", "activation": gate, "bias": bias}}
    else:
        mlp = plain_ffn(config, f"{layer}.mlp.up_proj", f"{layer}.mlp.down_proj", bias=bias)
    config.skip("rope_parameters", "rope_scaling")  # the class reads `rope_theta` alone
    rope = {"theta": config.float("rope_theta"), "style": "centred", "leading": 1 + registers}
    flow: Stages = [
        *_embeddings("embeddings", "patch_embeddings"),
        *_registers("embeddings", registers),
        {"patch_rope": rope},
        layers([norm(f"{layer}.norm1"), attention, _scale(layer, 1)], [norm(f"{layer}.norm2"), mlp, _scale(layer, 2)]),
        norm("norm"),
        {"cls_token_pool": {"output": "pooler_output"}},
    ]
    return vision(symbols, image, flow, shapes, _spare(registers))
