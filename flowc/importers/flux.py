"""FLUX (diffusers `FluxTransformer2DModel`): the whole transformer, from latents and text states to the sample."""

from __future__ import annotations

from typing import Any

from flowc.importers.config import Config
from flowc.importers.family import Family, Shapes, imports

PARTS = ("shift", "scale", "gate", "ff_shift", "ff_scale", "ff_gate")
"""Chunks of a dual block's modulation, in the order of its rows; those for the feed-forward come last."""

TIME_CHANNELS = 256
"""Width of the sinusoid of a timestep, fixed by `CombinedTimestepTextProjEmbeddings`."""


@imports("FluxTransformer2DModel")
def flux(config: Config, shapes: Shapes) -> Family:
    """Dual blocks over text and image, single blocks over both joined, and the projection of the image tokens."""
    config.assume({
        "patch_size": 1, "in_channels": 64, "out_channels": None, "num_layers": 19, "num_single_layers": 38,
        "attention_head_dim": 128, "num_attention_heads": 24, "joint_attention_dim": 4096,
        "pooled_projection_dim": 768, "guidance_embeds": False, "axes_dims_rope": [16, 56, 56],
    })  # fmt: skip
    heads, head_dim = config.int("num_attention_heads"), config.int("attention_head_dim")
    axes = config.list("axes_dims_rope")
    if any(type(a) is not int or a <= 0 or a % 2 for a in axes) or sum(axes) != head_dim:
        config.refuse("axes_dims_rope", f"the axes turn all {head_dim} channels of a head, in pairs")
        axes = [head_dim]
    in_channels, patch = config.int("in_channels"), config.int("patch_size")
    out_channels = config.int("out_channels", None) or in_channels
    guidance = config.bool("guidance_embeds")
    layers = {"dual_layers": config.int("num_layers"), "single_layers": config.int("num_single_layers")}
    symbols: dict[str, Any] = {
        "hidden": heads * head_dim,
        **{name: count for name, count in layers.items() if count},
        "heads": heads,
        "head_dim": head_dim,
        "ffn": 4 * heads * head_dim,
        "norm_eps": 1e-6,
        "axes": axes,
        "out_channels": patch * patch * out_channels,
    }
    inputs = {
        "hidden_states": f"float32[batch_size, image_sequence_length, {in_channels}]",
        "encoder_hidden_states": f"float32[batch_size, text_sequence_length, {config.int('joint_attention_dim')}]",
        "pooled_projections": f"float32[batch_size, {config.int('pooled_projection_dim')}]",
        "timestep": "float32[batch_size]",
        "img_ids": f"float32[image_sequence_length, {len(axes)}]",
        "txt_ids": f"float32[text_sequence_length, {len(axes)}]",
        **({"guidance": "float32[batch_size]"} if guidance else {}),
    }
    flow: list[Any] = [
        _linear("x_embedder"),
        {"store_stream": "img"},
        {"input": "encoder_hidden_states"},
        _linear("context_embedder"),
        {"store_stream": "txt"},
        *_condition(guidance=guidance),
        {"axial_rope": {"ids": ["txt_ids", "img_ids"], "dims": "$axes", "theta": 10000.0}},
        *_repeat("$dual_layers", "dual", dual_block("transformer_blocks.{i}"), layers["dual_layers"]),
        {"join_streams": ["txt", "img"]},
        *_repeat("$single_layers", "single", single_block("single_transformer_blocks.{i}"), layers["single_layers"]),
        {"part_like_stream": {"name": "img", "end": "last"}},
        _modulation("norm_out.linear.weight", ["out_scale", "out_shift"]),
        {"modulate": {"shift": "out_shift", "scale": "out_scale"}},
        _linear("proj_out", "$out_channels"),
    ]
    return Family(symbols, flow, inputs, output="sample")


def dual_block(prefix: str) -> list[Any]:
    """One `FluxTransformerBlock` over the streams txt and img, conditioned by temb."""
    attn = f"{prefix}.attn"
    text = ("txt", f"{prefix}.norm1_context.linear.weight", ("add_q_proj", "add_k_proj", "add_v_proj"), "norm_added")
    image = ("img", f"{prefix}.norm1.linear.weight", ("to_q", "to_k", "to_v"), "norm")
    return [
        {
            "dual_stream": {
                "a": "txt",
                "b": "img",
                "before_a": _before(attn, *text),
                "before_b": _before(attn, *image),
                "joint": ["joint_attention"],
                "after_a": _after("txt", f"{attn}.to_add_out", f"{prefix}.ff_context"),
                "after_b": _after("img", f"{attn}.to_out.0", f"{prefix}.ff"),
            }
        }
    ]


def _before(attn: str, stream: str, norm1: str, projections: tuple[str, ...], norm: str) -> list[Any]:
    """Modulated norm and the projections of q, k and v."""
    return [
        _modulation(norm1, [f"{stream}_{part}" for part in PARTS]),
        {"modulate": {"shift": f"{stream}_shift", "scale": f"{stream}_scale"}},
        _qkv(attn, projections, norm),
    ]


def _after(stream: str, out: str, ff: str) -> list[Any]:
    """Output projection and feed-forward, each gated and added to the stream."""
    return [
        _linear(out),
        {"scale_by_stream": f"{stream}_gate"},
        {"add_stream": stream},
        "residual_save",
        {"modulate": {"shift": f"{stream}_ff_shift", "scale": f"{stream}_ff_scale"}},
        {
            "gelu_ffn": {
                "intermediate": f"{ff}.net.0.proj.weight",
                "output": f"{ff}.net.2.weight",
                "activation": "gelu_tanh",
            }
        },
        {"scale_by_stream": f"{stream}_ff_gate"},
        "residual_add",
    ]


def single_block(prefix: str) -> list[Any]:
    """One `FluxSingleTransformerBlock` over the joined tokens: attention beside the feed-forward, one projection."""
    return [
        "residual_save",
        _modulation(f"{prefix}.norm.linear.weight", ["shift", "scale", "gate"]),
        {"modulate": {"shift": "shift", "scale": "scale"}},
        {"store_stream": "normed"},
        _qkv(f"{prefix}.attn", ("to_q", "to_k", "to_v"), "norm"),
        "joint_attention",
        {"store_stream": "attention"},
        {"load_stream": "normed"},
        _linear(f"{prefix}.proj_mlp", "$ffn"),
        {"activation": "gelu_tanh"},
        {"store_stream": "mlp"},
        {"join_streams": {"names": ["attention", "mlp"], "axis": -1}},
        _linear(f"{prefix}.proj_out"),
        {"scale_by_stream": "gate"},
        "residual_add",
    ]


def _condition(*, guidance: bool) -> list[Any]:
    """The stream temb: embedded timestep, guidance where there is one, and pooled text, added up."""
    sinusoid = {"timestep_sinusoid": {"dim": TIME_CHANNELS, "factor": 1000.0}}
    parts = [("timestep", "timestep_embedder", [sinusoid])]
    if guidance:
        parts.append(("guidance", "guidance_embedder", [sinusoid]))
    parts.append(("pooled_projections", "text_embedder", []))
    flow: list[Any] = []
    for i, (name, embedder, first) in enumerate(parts):
        stem = f"time_text_embed.{embedder}"
        flow += [{"input": name}, *first, _linear(f"{stem}.linear_1"), {"activation": "silu"}]
        flow += [_linear(f"{stem}.linear_2"), *([{"add_stream": "temb"}] if i else []), {"store_stream": "temb"}]
    return flow


def _qkv(attn: str, projections: tuple[str, ...], norm: str) -> dict[str, Any]:
    names = {n: f"{attn}.{p}.weight" for n, p in zip("qkv", projections, strict=True)}
    return {
        "project_qkv": {
            **names, "q_norm": f"{attn}.{norm}_q.weight", "k_norm": f"{attn}.{norm}_k.weight", "eps": "$norm_eps"
        }
    }  # fmt: skip


def _linear(stem: str, out: str = "$hidden") -> dict[str, Any]:
    return {"linear": {"weight": f"{stem}.weight", "out": out, "bias": True}}


def _modulation(weight: str, into: list[str]) -> dict[str, Any]:
    return {"modulation": {"condition": "temb", "weight": weight, "into": into}}


def _repeat(count: str, name: str, body: list[Any], times: int) -> list[Any]:
    return [{"repeat": {"count": count, "name": name, "body": body}}] if times else []
