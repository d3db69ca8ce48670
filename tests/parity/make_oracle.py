"""Makes new oracle cases: random tiny models with random options, and what HuggingFace computes from them.

Needs the `parity` extra (torch, transformers); flowc itself never does.

    python tests/parity/make_oracle.py OUT --seed 3 [--family qwen3 ...]

Each case is a folder in the layout of golden/oracles, so `tests/parity/harness.py` reads it like any other.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf

STEPS = 4


def _rope(
    r: random.Random, length: int, kinds: tuple[str, ...] = ("default", "linear", "llama3", "yarn")
) -> dict[str, Any]:
    kind = r.choice(kinds)
    rope: dict[str, Any] = {"rope_type": kind, "rope_theta": r.choice([500.0, 10000.0, 1e6])}
    if kind != "default":
        rope["factor"] = r.choice([2.0, 4.0, 8.0])
    if kind == "llama3":
        rope |= {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": length // 4}
    if kind == "yarn":
        rope["original_max_position_embeddings"] = length // 4
        if r.random() < 0.5:
            rope |= {"beta_fast": 16.0, "beta_slow": 2.0}
    return rope


def _decoder(r: random.Random) -> dict[str, Any]:
    kv = r.choice([1, 2, 3])
    heads = kv * r.choice([1, 2, 4])
    head_dim = r.choice([8, 12, 16, 20, 24])
    return {
        "vocab_size": r.randrange(70, 130),
        "hidden_size": r.choice([32, 40, 56, 72]),
        "num_hidden_layers": r.choice([2, 3, 4]),
        "num_attention_heads": heads,
        "num_key_value_heads": kv,
        "head_dim": head_dim,
        "intermediate_size": r.choice([44, 64, 90]),
        "rms_norm_eps": r.choice([1e-6, 1e-5, 1e-3]),
        "max_position_embeddings": 512,
        "tie_word_embeddings": r.random() < 0.5,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": None,
    }


def _llama(r: random.Random) -> Any:
    base = _decoder(r)
    return hf.LlamaConfig(
        **base,
        rope_parameters=_rope(r, 512),
        attention_bias=r.random() < 0.5,
        mlp_bias=r.random() < 0.5,
        hidden_act=r.choice(["silu", "gelu", "gelu_pytorch_tanh", "relu"]),
    )


def _mistral(r: random.Random) -> Any:
    return hf.MistralConfig(
        **_decoder(r), rope_parameters=_rope(r, 512, ("default", "linear")), sliding_window=r.choice([None, 2, 3, 7])
    )


def _qwen2(r: random.Random) -> Any:
    base = _decoder(r)
    base.pop("head_dim")
    base["hidden_size"] = base["num_attention_heads"] * r.choice([8, 12, 16])
    types = [r.choice(["full_attention", "sliding_attention"]) for _ in range(base["num_hidden_layers"])]
    return hf.Qwen2Config(
        **base,
        rope_parameters=_rope(r, 512, ("default", "yarn")),
        use_sliding_window=True,
        sliding_window=5,
        layer_types=types,
    )


def _qwen3(r: random.Random) -> Any:
    base = _decoder(r)
    types = [r.choice(["full_attention", "sliding_attention"]) for _ in range(base["num_hidden_layers"])]
    return hf.Qwen3Config(
        **base,
        rope_parameters=_rope(r, 512, ("default", "yarn", "linear")),
        attention_bias=r.random() < 0.5,
        use_sliding_window=True,
        sliding_window=4,
        layer_types=types,
    )


def _qwen3_moe(r: random.Random) -> Any:
    base = _decoder(r)
    base["hidden_size"] = 48
    return hf.Qwen3MoeConfig(
        **base,
        rope_parameters=_rope(r, 512, ("default",)),
        num_experts=r.choice([3, 6]),
        num_experts_per_tok=r.choice([1, 2, 3]),
        moe_intermediate_size=r.choice([20, 36]),
        norm_topk_prob=r.random() < 0.5,
        decoder_sparse_step=r.choice([1, 2]),
        mlp_only_layers=r.choice([[], [0]]),
        attention_bias=r.random() < 0.5,
    )


def _gemma(r: random.Random) -> Any:
    base = _decoder(r)
    base["tie_word_embeddings"] = True
    return hf.GemmaConfig(**base, rope_parameters=_rope(r, 512, ("default", "linear")), attention_bias=r.random() < 0.5)


def _gemma2(r: random.Random) -> Any:
    base = _decoder(r)
    base["tie_word_embeddings"] = True
    return hf.Gemma2Config(
        **base,
        rope_parameters=_rope(r, 512, ("default",)),
        sliding_window=r.choice([2, 5]),
        query_pre_attn_scalar=r.choice([7, 24, 100]),
        attn_logit_softcapping=r.choice([None, 2.0, 30.0]),
        final_logit_softcapping=r.choice([None, 5.0, 30.0]),
    )


def _gemma3(r: random.Random) -> Any:
    base = _decoder(r)
    base["tie_word_embeddings"] = True
    types = [r.choice(["full_attention", "sliding_attention"]) for _ in range(base["num_hidden_layers"])]
    rope = {
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
        "full_attention": _rope(r, 512, ("default", "linear")),
    }
    return hf.Gemma3TextConfig(
        **base,
        rope_parameters=rope,
        sliding_window=r.choice([3, 6]),
        query_pre_attn_scalar=r.choice([12, 50]),
        layer_types=types,
    )


def _phi3(r: random.Random) -> Any:
    base = _decoder(r)
    base.pop("head_dim")
    base["hidden_size"] = base["num_attention_heads"] * 16
    rope: dict[str, Any] = {"rope_type": "default", "rope_theta": 10000.0}
    partial = r.choice([0.5, 0.75, 1.0])
    extra: dict[str, Any] = {}
    if r.random() < 0.6:
        half = int(16 * partial) // 2
        rope = {
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "short_factor": [1.0 + 0.1 * i for i in range(half)],
            "long_factor": [2.0 + 0.5 * i for i in range(half)],
        }
        extra["original_max_position_embeddings"] = r.choice([256, 8])
    rope["partial_rotary_factor"] = partial
    return hf.Phi3Config(**base, rope_parameters=rope, sliding_window=r.choice([None, 6]), **extra)


def _smollm3(r: random.Random) -> Any:
    base = _decoder(r)
    base.pop("head_dim")
    base["hidden_size"] = base["num_attention_heads"] * r.choice([8, 16])
    nope = [r.choice([0, 1]) for _ in range(base["num_hidden_layers"])]
    window = r.random() < 0.5
    return hf.SmolLM3Config(
        **base,
        rope_parameters=_rope(r, 512, ("default", "linear")),
        no_rope_layers=nope,
        use_sliding_window=window,
        sliding_window=4 if window else None,
        attention_bias=r.random() < 0.5,
        mlp_bias=r.random() < 0.5,
    )


def _hybrid(r: random.Random) -> dict[str, Any]:
    key_heads = r.choice([1, 2])
    base = _decoder(r) | {"head_dim": 16, "num_hidden_layers": 4, "rms_norm_eps": 1e-3}
    return base | {
        "linear_num_key_heads": key_heads,
        "linear_num_value_heads": key_heads * r.choice([1, 2, 3]),
        "linear_key_head_dim": r.choice([6, 8]),
        "linear_value_head_dim": r.choice([6, 10]),
        "linear_conv_kernel_dim": r.choice([2, 3, 4]),
        "layer_types": [r.choice(["linear_attention", "full_attention"]) for _ in range(3)] + ["full_attention"],
    }


def _qwen3_next(r: random.Random) -> Any:
    return hf.Qwen3NextConfig(
        **_hybrid(r),
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0, "partial_rotary_factor": r.choice([0.25, 0.5])},
        num_experts=4,
        num_experts_per_tok=2,
        moe_intermediate_size=24,
        shared_expert_intermediate_size=20,
        norm_topk_prob=r.random() < 0.5,
        decoder_sparse_step=1,
        mlp_only_layers=r.choice([[], [1]]),
    )


def _qwen3_5(r: random.Random) -> Any:
    rope = {
        "rope_type": "default",
        "rope_theta": 10000.0,
        "partial_rotary_factor": 0.5,
        "mrope_section": [2, 1, 1],
        "mrope_interleaved": True,
    }
    return hf.Qwen3_5TextConfig(**_hybrid(r), rope_parameters=rope)


def _encoder(r: random.Random) -> dict[str, Any]:
    heads = r.choice([2, 3, 4])
    return {
        "vocab_size": r.randrange(70, 130),
        "hidden_size": heads * r.choice([8, 12, 20]),
        "num_hidden_layers": r.choice([2, 3]),
        "num_attention_heads": heads,
        "intermediate_size": r.choice([44, 66]),
        "max_position_embeddings": 64,
    }


def _bert(r: random.Random) -> Any:
    return hf.BertConfig(
        **_encoder(r),
        hidden_act=r.choice(["gelu", "relu", "gelu_new"]),
        layer_norm_eps=r.choice([1e-12, 1e-3]),
        type_vocab_size=r.choice([1, 2, 3]),
    )


def _roberta(r: random.Random) -> Any:
    return hf.RobertaConfig(
        **_encoder(r), hidden_act=r.choice(["gelu", "silu"]), layer_norm_eps=1e-5, type_vocab_size=1, pad_token_id=1
    )


def _mpnet(r: random.Random) -> Any:
    return hf.MPNetConfig(**_encoder(r), relative_attention_num_buckets=32)


def _distilbert(r: random.Random) -> Any:
    e = _encoder(r)
    return hf.DistilBertConfig(
        vocab_size=e["vocab_size"],
        dim=e["hidden_size"],
        n_layers=e["num_hidden_layers"],
        n_heads=e["num_attention_heads"],
        hidden_dim=e["intermediate_size"],
        max_position_embeddings=64,
        activation=r.choice(["gelu", "relu"]),
    )


def _modernbert(r: random.Random) -> Any:
    e = _encoder(r) | {"num_hidden_layers": 4}
    e["hidden_size"] = e["num_attention_heads"] * r.choice([8, 12])
    types = [r.choice(["full_attention", "sliding_attention"]) for _ in range(4)]
    return hf.ModernBertConfig(
        **e,
        layer_types=types,
        local_attention=r.choice([4, 6]),
        attention_bias=r.random() < 0.5,
        mlp_bias=r.random() < 0.5,
        norm_bias=r.random() < 0.5,
        norm_eps=r.choice([1e-5, 1e-3]),
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        cls_token_id=1,
        sep_token_id=2,
    )


def _vision(r: random.Random) -> dict[str, Any]:
    heads, patch = r.choice([2, 3]), r.choice([4, 6])
    return {
        "hidden_size": heads * r.choice([8, 16]),
        "num_hidden_layers": 2,
        "num_attention_heads": heads,
        "patch_size": patch,
        "image_size": patch * r.choice([2, 4]),
        "num_channels": r.choice([1, 3]),
        "layer_norm_eps": r.choice([1e-6, 1e-3]),
    }


def _vit(r: random.Random, **more: Any) -> Any:
    v = _vision(r)
    if r.random() < 0.5:
        v["patch_size"] = [v["patch_size"], v["patch_size"] + 1]
        v["image_size"] = [2 * v["patch_size"][0] + r.choice([0, 1]), 3 * v["patch_size"][1] + r.choice([0, 2])]
    return hf.ViTConfig(
        **v,
        intermediate_size=50,
        hidden_act=r.choice(["gelu", "relu"]),
        qkv_bias=r.random() < 0.5,
        pooler_act=r.choice(["tanh", "relu"]),
        pooler_output_size=r.choice([None, 20]),
        **more,
    )


def _vit_classifier(r: random.Random) -> Any:
    return _vit(r, num_labels=r.choice([2, 5]))


def _dinov2(r: random.Random) -> Any:
    return hf.Dinov2Config(
        **_vision(r), mlp_ratio=r.choice([2, 3]), use_swiglu_ffn=r.random() < 0.5, qkv_bias=r.random() < 0.7
    )


def _dinov2_registers(r: random.Random) -> Any:
    return hf.Dinov2WithRegistersConfig(
        **_vision(r), mlp_ratio=r.choice([2, 3]), use_swiglu_ffn=r.random() < 0.5, num_register_tokens=r.choice([1, 3])
    )


def _dinov3(r: random.Random) -> Any:
    v = _vision(r)
    v["hidden_size"] = v["num_attention_heads"] * r.choice([8, 16])
    biases = {f"{name}_bias": r.random() < 0.5 for name in ("query", "key", "value", "proj", "mlp")}
    return hf.DINOv3ViTConfig(
        **v,
        **biases,
        intermediate_size=40,
        use_gated_mlp=r.random() < 0.5,
        num_register_tokens=r.choice([0, 2]),
        rope_theta=50.0,
    )


def _clip(r: random.Random) -> Any:
    return hf.CLIPVisionConfig(**_vision(r), intermediate_size=50, hidden_act=r.choice(["quick_gelu", "gelu"]))


def _siglip(r: random.Random) -> Any:
    return hf.SiglipVisionConfig(
        **_vision(r), intermediate_size=50, hidden_act="gelu_pytorch_tanh", vision_use_head=r.random() < 0.7
    )


FAMILIES: dict[str, tuple[Any, str, str]] = {
    "llama": (_llama, "LlamaForCausalLM", "decoder"),
    "mistral": (_mistral, "MistralForCausalLM", "decoder"),
    "qwen2": (_qwen2, "Qwen2ForCausalLM", "decoder"),
    "qwen3": (_qwen3, "Qwen3ForCausalLM", "decoder"),
    "qwen3_moe": (_qwen3_moe, "Qwen3MoeForCausalLM", "decoder"),
    "gemma": (_gemma, "GemmaForCausalLM", "decoder"),
    "gemma2": (_gemma2, "Gemma2ForCausalLM", "decoder"),
    "gemma3": (_gemma3, "Gemma3ForCausalLM", "decoder"),
    "phi3": (_phi3, "Phi3ForCausalLM", "decoder"),
    "smollm3": (_smollm3, "SmolLM3ForCausalLM", "decoder"),
    "qwen3_next": (_qwen3_next, "Qwen3NextForCausalLM", "decoder"),
    "qwen3_5": (_qwen3_5, "Qwen3_5ForCausalLM", "decoder"),
    "bert": (_bert, "BertModel", "encoder"),
    "bert_mlm": (_bert, "BertForMaskedLM", "encoder"),
    "roberta": (_roberta, "RobertaModel", "encoder"),
    "roberta_mlm": (_roberta, "RobertaForMaskedLM", "encoder"),
    "mpnet": (_mpnet, "MPNetModel", "encoder"),
    "distilbert": (_distilbert, "DistilBertModel", "encoder"),
    "modernbert": (_modernbert, "ModernBertModel", "encoder"),
    "vit": (_vit, "ViTModel", "vision"),
    "vit_classifier": (_vit_classifier, "ViTForImageClassification", "vision"),
    "dinov2": (_dinov2, "Dinov2Model", "vision"),
    "dinov2_with_registers": (_dinov2_registers, "Dinov2WithRegistersModel", "vision"),
    "dinov3_vit": (_dinov3, "DINOv3ViTModel", "vision"),
    "clip_vision": (_clip, "CLIPVisionModel", "vision"),
    "siglip_vision": (_siglip, "SiglipVisionModel", "vision"),
}


def _randomise(model: Any, seed: int) -> None:
    """Weights large enough that every one of them shows in the output."""
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        noise = torch.randn(p.shape, generator=generator)
        if p.ndim >= 2:
            p.data = noise * (1.2 / max(1, p.shape[-1]) ** 0.5) if "embed" not in name else noise * 0.7
        elif "A_log" in name:
            p.data = noise * 0.5
        elif "norm" in name.lower() or "lambda" in name or "scale" in name:
            p.data = p.data + 0.3 * noise
        else:
            p.data = 0.3 * noise


def _positions(mask: Any) -> Any:
    return (mask.cumsum(-1) - 1).clamp(min=0) * mask


def _run_decoder(model: Any, config: Any, r: random.Random) -> dict[str, np.ndarray[Any, Any]]:
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for scenario, batch in (("b1", 1), ("b2", 2)):
        length = r.randrange(9, 16)
        ids = torch.randint(3, config.vocab_size, (batch, length))
        mask = torch.ones_like(ids)
        if batch == 2:
            mask[1, : r.randrange(1, length - 3)] = 0
        steps = torch.randint(3, config.vocab_size, (batch, STEPS))
        positions = _positions(mask)
        with torch.no_grad():
            out = model(ids, attention_mask=mask, position_ids=positions, use_cache=True)
            cache, step_logits, grown = out.past_key_values, [], mask
            for s in range(STEPS):
                grown = torch.cat([grown, torch.ones(batch, 1, dtype=grown.dtype)], 1)
                step = model(
                    steps[:, s : s + 1],
                    attention_mask=grown,
                    position_ids=grown.sum(-1, keepdim=True) - 1,
                    past_key_values=cache,
                    use_cache=True,
                )
                cache = step.past_key_values
                step_logits.append(step.logits)
        found = {
            "logits": out.logits,
            "step_logits": torch.cat(step_logits, 1),
            "input_ids": ids,
            "attention_mask": mask,
            "position_ids": positions,
            "step_input_ids": steps,
            "step_position_ids": torch.zeros_like(steps),
        }
        arrays |= {f"{scenario}/{k}": v.numpy() for k, v in found.items()}
    return arrays


def _run_encoder(model: Any, config: Any, r: random.Random) -> dict[str, np.ndarray[Any, Any]]:
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for scenario, batch in (("b1", 1), ("b2", 2)):
        length = r.randrange(9, 20)
        ids = torch.randint(3, config.vocab_size, (batch, length))
        mask = torch.ones_like(ids)
        pad = config.pad_token_id if config.pad_token_id is not None else 0
        if batch == 2:
            cut = r.randrange(4, length)
            mask[1, cut:] = 0
            ids[1, cut:] = pad
        feeds = {"input_ids": ids, "attention_mask": mask}
        if getattr(config, "type_vocab_size", 0) > 1 and config.model_type == "bert":
            feeds["token_type_ids"] = torch.randint(0, config.type_vocab_size, (batch, length))
        with torch.no_grad():
            out = model(**feeds)
        for name in ("last_hidden_state", "pooler_output", "logits"):
            if getattr(out, name, None) is not None:
                arrays[f"{scenario}/{name}"] = getattr(out, name).numpy()
        arrays |= {f"{scenario}/{k}": v.numpy() for k, v in feeds.items()}
    return arrays


def _run_vision(model: Any, config: Any, r: random.Random) -> dict[str, np.ndarray[Any, Any]]:
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    size = config.image_size if isinstance(config.image_size, list) else [config.image_size] * 2
    for scenario, batch in (("b1", 1), ("b2", 2)):
        if config.model_type == "dinov3_vit":  # it takes images of any size
            size = [config.patch_size * r.choice([1, 2, 5]) + r.choice([0, 1]) for _ in range(2)]
        pixels = torch.randn(batch, config.num_channels, *size)
        with torch.no_grad():
            out = model(pixels)
        arrays[f"{scenario}/pixel_values"] = pixels.numpy()
        for name in ("last_hidden_state", "pooler_output", "logits"):
            if getattr(out, name, None) is not None:
                arrays[f"{scenario}/{name}"] = getattr(out, name).numpy()
    return arrays


def make(family: str, seed: int, out: Path) -> Path:
    """Write one case; returns its folder."""
    build, cls, kind = FAMILIES[family]
    r = random.Random(f"{family}{seed}")
    torch.manual_seed(seed)
    config = build(r)
    config._attn_implementation = "eager"  # pyright: ignore[reportPrivateUsage]
    model = getattr(hf, cls)(config).eval()
    _randomise(model, seed)
    folder = out / f"{family}_{seed}"
    model.save_pretrained(folder)
    model = getattr(hf, cls).from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    runs = {"decoder": _run_decoder, "encoder": _run_encoder, "vision": _run_vision}
    np.savez_compressed(folder / "ref.npz", **runs[kind](model, config, r))
    facts = {"case": folder.name, "family": config.model_type.removesuffix("_text"), "kind": kind, "seed": seed}
    (folder / "case.json").write_text(json.dumps(facts))
    return folder


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--seed", type=int, nargs="+", default=[0])
    parser.add_argument("--family", nargs="+", default=list(FAMILIES))
    args = parser.parse_args()
    for family in args.family:
        for seed in args.seed:
            try:
                print(make(family, seed, args.out), flush=True)
            except Exception as e:  # a draw that transformers itself refuses says nothing about flowc
                print(f"{family} {seed}: {type(e).__name__}: {str(e)[:300]}", flush=True)
