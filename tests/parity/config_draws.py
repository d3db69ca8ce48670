"""Random configurations of every family: sound ones, and what old, mixed and careless files make of them.

A draw starts from a small sound model and applies a few moves: layouts of ropes, windows and layer types, activations,
nulls, fields left out, and fields of other families.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Fields = dict[str, Any]
Move = Callable[[random.Random, Fields], None]

FULL, SLIDING, LINEAR = "full_attention", "sliding_attention", "linear_attention"
ACTIVATIONS = (
    "silu", "swish", "gelu", "gelu_new", "gelu_fast", "gelu_pytorch_tanh", "gelu_python", "gelu_python_tanh",
    "gelu_accurate", "gelu_10", "relu", "relu2", "quick_gelu", "tanh", "mish", "sigmoid", "leaky_relu", "linear",
    "relu6", "hardswish", "laplace",
)  # fmt: skip
STRAY: tuple[tuple[str, Any], ...] = (
    ("rope_theta", 300.0), ("rope_local_base_freq", 77.0), ("global_rope_theta", 500.0), ("local_rope_theta", 90.0),
    ("partial_rotary_factor", 0.5), ("partial_rotary_factor", 1.0), ("sliding_window", 3), ("use_sliding_window", True),
    ("original_max_position_embeddings", 16), ("head_dim", 8), ("rope_interleaved", False), ("attention_bias", False),
    ("mlp_bias", False), ("hidden_activation", "gelu"), ("hidden_act", "gelu"), ("query_pre_attn_scalar", 3),
    ("attn_logit_softcapping", 5.0), ("final_logit_softcapping", 7.0), ("num_local_experts", 4), ("layer_types", None),
    ("rope_scaling", {"rope_type": "linear", "factor": 3.0}), ("rope_scaling", None), ("rope_scaling", {}),
    ("rope_parameters", {"rope_theta": 50.0, "rope_type": "default"}), ("rope_parameters", None), ("max_window_layers", 1),
    ("no_rope_layers", [1, 0, 1, 1]), ("sliding_window_pattern", 2), ("_sliding_window_pattern", 2), ("norm_eps", 0.1),
    ("layer_norm_eps", 0.1), ("rms_norm_eps", 0.1), ("position_embedding_type", "absolute"), ("local_attention", 4),
    ("qkv_bias", False), ("use_cache", False), ("pretraining_tp", 2), ("attention_dropout", 0.3), ("is_decoder", False),
    ("global_attn_every_n_layers", 2), ("max_position_embeddings", 40), ("intermediate_size", 24), ("type_vocab_size", 2),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Drawn:
    """A family's draws: the model classes that may be made, a sound base, and the moves."""

    kind: str
    classes: tuple[str, ...]
    base: Callable[[random.Random], Fields]
    moves: tuple[Move, ...]
    nested: str = ""
    """The field that holds the text model's configuration, where it is inside another."""


def draw(r: random.Random, family: str) -> tuple[str, str, Fields]:
    """Kind of model, model class and configuration."""
    drawn = FAMILIES[family]
    whole = drawn.base(r)
    fields = whole[drawn.nested] if drawn.nested else whole
    for move in r.choices(drawn.moves, k=r.choice((1, 1, 2, 2, 3, 4))):
        move(r, fields)
    name = r.choice(drawn.classes)
    return drawn.kind, name, {"architectures": [name], **whole}


# moves


def activation(*names: str) -> Move:
    """Another activation, often one that few files name."""

    def move(r: random.Random, c: Fields) -> None:
        c[r.choice(names)] = r.choice(ACTIVATIONS)

    return move


def leave_out(*names: str) -> Move:
    """A field that the class has a default for."""

    def move(r: random.Random, c: Fields) -> None:
        c.pop(r.choice(names), None)

    return move


def null(*names: str) -> Move:
    """A field that is there and null."""

    def move(r: random.Random, c: Fields) -> None:
        c[r.choice(names)] = None

    return move


def put(**choices: Any) -> Move:
    """A field with one of some values."""

    def move(r: random.Random, c: Fields) -> None:
        name = r.choice(sorted(choices))
        c[name] = r.choice(choices[name])

    return move


def stray(r: random.Random, c: Fields) -> None:
    """A field that means something to some family."""
    name, value = r.choice(STRAY)
    c[name] = dict(value) if isinstance(value, dict) else value  # pyright: ignore[reportUnknownArgumentType]


def rope_values(r: random.Random, pairs: int, kinds: tuple[str, ...]) -> Fields:
    """Parameters of one rope, in new or old terms, with some missing, null or stray."""
    kind = r.choice(kinds)
    found: Fields = {r.choice(("rope_type", "rope_type", "type")): kind}
    if r.random() < 0.15:
        found["type" if "rope_type" in found else "rope_type"] = r.choice(kinds)
    if r.random() < 0.6:
        found["rope_theta"] = r.choice((40.0, 1000.0, 10000, 1e6))
    both = {found.get("rope_type"), found.get("type")}
    if both - {"default", None}:
        found["factor"] = r.choice((1.0, 2.0, 4, 8.0, 0.5))
    if both & {"llama3"}:
        found |= {"low_freq_factor": r.choice((1.0, 2)), "high_freq_factor": r.choice((4.0, 3.0, 8.0))}
    if both & {"longrope", "su", "yarn"} and r.random() < 0.8:
        for name in ("short_factor", "long_factor"):
            found[name] = [round(r.uniform(1.0, 3.0), 2) for _ in range(pairs)]
    if both & {"llama3", "yarn", "longrope", "su"} and r.random() < 0.75:
        found["original_max_position_embeddings"] = r.choice((4, 8, 9, 16, 32))
    for name, values in (
        ("attention_factor", (0.7, 1.5, None)), ("beta_fast", (4.0, 16, None, 0)), ("beta_slow", (2.0, 0.5, None)),
        ("mscale", (0.7, 1.0, None)), ("mscale_all_dim", (0.5, 1.0, 0, None)), ("truncate", (False, True, None)),
        ("partial_rotary_factor", (0.5, 1.0, 0.75)), ("factor", (None, 3.0)), ("mrope_section", ([1, 1, 0],)),
        ("rope_theta", (None,)), ("rope_type", (None,)), ("finetuned", (True,)),
    ):  # fmt: skip
        chance = 0.25 if "yarn" in both and name not in ("rope_theta", "rope_type", "factor", "finetuned") else 0.03
        if r.random() < chance:
            found[name] = r.choice(values)
    if r.random() < 0.04 and len(found) > 1:
        found.pop(r.choice(sorted(found)))
    return found


def one_rope(*kinds: str, pairs: int = 4) -> Move:
    """The rope of all layers: new layout, old one, or both."""
    kinds = kinds or ("default", "linear", "dynamic", "llama3", "yarn", "longrope")

    def move(r: random.Random, c: Fields) -> None:
        style = r.randrange(6)
        c.pop("rope_parameters", None)
        if style in (0, 1, 5):
            c["rope_parameters"] = rope_values(r, pairs, kinds)
        if style in (2, 3, 5):
            c["rope_scaling"] = r.choice((rope_values(r, pairs, kinds), rope_values(r, pairs, kinds), None, {}))
        if style in (2, 3, 4) or r.random() < 0.2:
            c["rope_theta"] = r.choice((40.0, 500, 1e6))
        if r.random() < 0.1:
            c["original_max_position_embeddings"] = r.choice((4, 8, 16, 64))
        if r.random() < 0.08:
            c["partial_rotary_factor"] = r.choice((0.5, 1.0, 0.25, None))
        if r.random() < 0.04:
            c["rope_parameters"] = {FULL: rope_values(r, pairs, kinds), SLIDING: rope_values(r, pairs, kinds)}
        if r.random() < 0.03:
            c["rope_theta"] = None

    return move


def layer_ropes(old: tuple[str, str], pairs: int = 4) -> Move:
    """Ropes by layer type: entries, old fields (`old`: global and local theta), or both."""
    kinds = ("default", "default", "linear", "llama3", "yarn", "longrope", "dynamic")

    def move(r: random.Random, c: Fields) -> None:
        style = r.randrange(6)
        c.pop("rope_parameters", None)
        if style in (0, 1, 5):
            types = r.choice(((FULL, SLIDING), (FULL, SLIDING), (FULL, SLIDING), (FULL,), (SLIDING,)))
            c["rope_parameters"] = {t: r.choice((rope_values(r, pairs, kinds),) * 8 + (None,)) for t in types}
            if r.random() < 0.1:
                c["rope_parameters"]["truncate"] = r.choice((False, True, None))
            if r.random() < 0.05:
                c["rope_parameters"]["rope_theta"] = 12.0
        if style in (2, 3, 5):
            c["rope_scaling"] = r.choice((rope_values(r, pairs, kinds), rope_values(r, pairs, kinds), None, {}))
        if style in (2, 3, 4) or r.random() < 0.4:
            for name in old:
                if r.random() < 0.7:
                    c[name] = r.choice((30.0, 700.0, 1e5))
        if r.random() < 0.15:
            c["rope_theta"] = 333.0
        if r.random() < 0.1:
            c["original_max_position_embeddings"] = r.choice((4, 8, 16))
        if r.random() < 0.08:
            c["partial_rotary_factor"] = r.choice((0.5, 1.0, None))
        if r.random() < 0.03:
            c["rope_parameters"] = rope_values(r, pairs, kinds)

    return move


def window(r: random.Random, c: Fields) -> None:
    """Which layers see a window, and how wide it is."""
    layers = c["num_hidden_layers"]
    for name, values in (
        ("sliding_window", (1, 2, 3, 5, None)), ("use_sliding_window", (True, True, False)),
        ("max_window_layers", (0, 1, 2)), ("layer_types", ("mix", "mix", None, "full", "short", "odd")),
        ("sliding_window_pattern", (1, 2, 3)), ("_sliding_window_pattern", (2,)),
    ):  # fmt: skip
        if r.random() < 0.5:
            c[name] = r.choice(values)
    types = c.get("layer_types")
    if isinstance(types, str):
        mixed = [r.choice((FULL, SLIDING)) for _ in range(layers)]
        full = [FULL] * layers
        lists = {"mix": mixed, "full": full, "short": mixed[1:], "odd": [*mixed[1:], "chunked_attention"]}
        c["layer_types"] = lists[types]
    for name in ("max_window_layers", "sliding_window_pattern", "_sliding_window_pattern"):
        if name in c and c.get("model_type") not in _READS[name] and r.random() < 0.8:
            del c[name]
    if c.get("model_type") == "mistral":
        c.pop("layer_types", None)


_READS = {
    "max_window_layers": ("qwen2", "qwen3", "smollm3"), "sliding_window_pattern": ("gemma3_text",),
    "_sliding_window_pattern": ("gemma3_text",),
}  # fmt: skip


def no_rope(r: random.Random, c: Fields) -> None:
    """SmolLM3's layers without rope."""
    layers = c["num_hidden_layers"]
    c["no_rope_layers"] = r.choice((
        [r.choice((0, 1)) for _ in range(layers)], [r.choice((0, 1)) for _ in range(layers + 2)], None, [1] * (layers - 1),
    ))  # fmt: skip
    if r.random() < 0.5:
        c["no_rope_layer_interval"] = r.choice((1, 2, 3))


def hybrid_layers(r: random.Random, c: Fields) -> None:
    """Which layers are linear."""
    layers = c["num_hidden_layers"]
    c["layer_types"] = r.choice(([r.choice((FULL, LINEAR)) for _ in range(layers)], None, [FULL] * (layers - 1)))
    if c["layer_types"] is None and r.random() < 0.5:
        del c["layer_types"]
    if r.random() < 0.6:
        c["full_attention_interval"] = r.choice((1, 2, 3))


def local_layers(r: random.Random, c: Fields) -> None:
    """ModernBERT's layer types and reach."""
    layers = c["num_hidden_layers"]
    for name, values in (
        ("local_attention", (0, 1, 2, 4, 5)), ("global_attn_every_n_layers", (1, 2, 3)), ("sliding_window", (1, 2)),
    ):  # fmt: skip
        if r.random() < (0.15 if name == "sliding_window" else 0.5):
            c[name] = r.choice(values)
    if r.random() < 0.5:
        c["layer_types"] = r.choice(([r.choice((FULL, SLIDING)) for _ in range(layers)], None, [FULL] * (layers + 1)))


def routing(r: random.Random, c: Fields) -> None:
    """Which layers have experts, how many and by which name."""
    for name, values in (
        ("norm_topk_prob", (True, False)), ("decoder_sparse_step", (1, 2, 3)), ("mlp_only_layers", ([0], [], [1], None)),
        ("num_experts_per_tok", (1, 2, 3)), ("num_experts", (3, 4, 0)),
    ):  # fmt: skip
        if r.random() < 0.5:
            c[name] = r.choice(values)
    if c.get("model_type") == "qwen3_moe" and r.random() < 0.4:
        c["num_local_experts"] = r.choice((3, 4))
        if r.random() < 0.5:
            c.pop("num_experts", None)


# bases


def _decoder(model_type: str, **fields: Any) -> Callable[[random.Random], Fields]:
    def base(r: random.Random) -> Fields:
        return {
            "model_type": model_type, "vocab_size": 40, "hidden_size": 32, "num_hidden_layers": r.choice((2, 3)),
            "num_attention_heads": 4, "num_key_value_heads": r.choice((1, 2, 4)), "head_dim": 8, "intermediate_size": 24,
            "rms_norm_eps": r.choice((1e-6, 1e-5)), "max_position_embeddings": r.choice((16, 64)),
            "tie_word_embeddings": r.random() < 0.5, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": None,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1000.0}, **fields,
        }  # fmt: skip

    return base


def _without(base: Callable[[random.Random], Fields], *names: str) -> Callable[[random.Random], Fields]:
    def fewer(r: random.Random) -> Fields:
        return {k: v for k, v in base(r).items() if k not in names}

    return fewer


_GEMMA_ROPES = {
    FULL: {"rope_type": "default", "rope_theta": 1000.0},
    SLIDING: {"rope_type": "default", "rope_theta": 90.0},
}
_gemma3_text = _decoder(
    "gemma3_text", sliding_window=3, query_pre_attn_scalar=7, tie_word_embeddings=True, rope_parameters=_GEMMA_ROPES,
    hidden_activation="gelu_pytorch_tanh",
)  # fmt: skip


def _copied(base: Callable[[random.Random], Fields]) -> Callable[[random.Random], Fields]:
    def copy(r: random.Random) -> Fields:
        found = base(r)
        return {k: {n: dict(e) for n, e in v.items()} if v is _GEMMA_ROPES else v for k, v in found.items()}

    return copy


def _gemma3(r: random.Random) -> Fields:
    vision = {
        "model_type": "siglip_vision_model", "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1,
        "num_attention_heads": 1, "image_size": 4, "patch_size": 2,
    }  # fmt: skip
    return {
        "model_type": "gemma3", "text_config": _copied(_gemma3_text)(r), "vision_config": vision, "mm_tokens_per_image": 1,
        "image_token_index": 39, "boi_token_index": 38, "eoi_token_index": 37,
    }  # fmt: skip


def _hybrid(model_type: str, **fields: Any) -> Callable[[random.Random], Fields]:
    def base(r: random.Random) -> Fields:
        layers = r.choice((2, 3))
        return {
            **_decoder(model_type)(r), "num_hidden_layers": layers, "num_key_value_heads": r.choice((1, 2)),
            "head_dim": 16, "linear_conv_kernel_dim": r.choice((2, 4)), "linear_key_head_dim": 8,
            "linear_value_head_dim": 6, "linear_num_key_heads": 2, "linear_num_value_heads": 4,
            "layer_types": [LINEAR] * (layers - 1) + [FULL], **fields,
        }  # fmt: skip

    return base


_MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 12}
_SHARED = {**_MOE, "shared_expert_intermediate_size": 10}


def _wrapped(model_type: str, text: Callable[[random.Random], Fields]) -> Callable[[random.Random], Fields]:
    def base(r: random.Random) -> Fields:
        vision = {
            "depth": 1, "hidden_size": 8, "intermediate_size": 8, "num_heads": 1, "out_hidden_size": 32,
            "num_position_embeddings": 4,
        }  # fmt: skip
        return {
            "model_type": model_type, "text_config": text(r), "vision_config": vision, "image_token_id": 39,
            "video_token_id": 38, "vision_start_token_id": 37, "vision_end_token_id": 36, "tie_word_embeddings": False,
        }  # fmt: skip

    return base


def _encoder(model_type: str, **fields: Any) -> Callable[[random.Random], Fields]:
    def base(r: random.Random) -> Fields:
        return {
            "model_type": model_type, "vocab_size": 40, "hidden_size": 32, "num_hidden_layers": r.choice((2, 3)),
            "num_attention_heads": r.choice((2, 4)), "intermediate_size": 24, "hidden_act": "gelu",
            "max_position_embeddings": 24, "type_vocab_size": r.choice((1, 2)), "layer_norm_eps": 1e-5, **fields,
        }  # fmt: skip

    return base


def _distilbert(r: random.Random) -> Fields:
    return {
        "model_type": "distilbert", "vocab_size": 40, "dim": 32, "n_layers": 2, "n_heads": r.choice((2, 4)),
        "hidden_dim": 24, "activation": "gelu", "max_position_embeddings": 24, "pad_token_id": 0,
    }  # fmt: skip


def _modernbert(r: random.Random) -> Fields:
    return {
        "model_type": "modernbert", "vocab_size": 40, "hidden_size": 32, "num_hidden_layers": r.choice((2, 3, 4)),
        "num_attention_heads": 4, "intermediate_size": 24, "local_attention": 4, "max_position_embeddings": 64,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "cls_token_id": 1, "sep_token_id": 2,
        "norm_eps": 1e-5,
    }  # fmt: skip


def _vision(model_type: str, **fields: Any) -> Callable[[random.Random], Fields]:
    def base(r: random.Random) -> Fields:
        return {
            "model_type": model_type, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": r.choice((2, 4)),
            "intermediate_size": 24, "hidden_act": "gelu", "layer_norm_eps": r.choice((1e-6, 1e-5)), "image_size": 12,
            "patch_size": r.choice((3, 4)), "num_channels": r.choice((1, 3)), **fields,
        }  # fmt: skip

    return base


# families

_NULLS = ("rope_scaling", "rope_parameters", "num_key_value_heads", "head_dim", "sliding_window", "layer_types")
_OMIT = ("max_position_embeddings", "rms_norm_eps", "hidden_act", "rope_parameters", "head_dim")
_COMMON: tuple[Move, ...] = (activation("hidden_act"), leave_out(*_OMIT), null(*_NULLS), stray)
_ROPE = one_rope()
_GEMMA_MOVES: tuple[Move, ...] = (
    activation("hidden_activation", "hidden_activation", "hidden_act"), null(*_NULLS, "final_logit_softcapping"), stray, window,
    leave_out("max_position_embeddings", "rms_norm_eps", "hidden_activation", "rope_parameters", "sliding_window"),
    put(query_pre_attn_scalar=(5, 64), final_logit_softcapping=(3.0, 20.0), attn_logit_softcapping=(2.0, 9.0), attention_bias=(True, False)),
)  # fmt: skip
_LAYERED = layer_ropes(("rope_theta", "rope_local_base_freq"))
_TEXT_HEADS = ("Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification")
_ENCODER_MOVES: tuple[Move, ...] = (
    activation("hidden_act"), leave_out("max_position_embeddings", "layer_norm_eps", "hidden_act", "type_vocab_size"),
    null("position_embedding_type", "classifier_dropout", "layer_norm_eps", "head_dim"), stray,
    put(layer_norm_eps=(1e-12, 0.01), num_attention_heads=(1, 2, 8)),
)  # fmt: skip
_VISION_MOVES: tuple[Move, ...] = (
    activation("hidden_act"), leave_out("layer_norm_eps", "hidden_act", "num_channels"), stray, null("head_dim", "hidden_act"),
    put(qkv_bias=(True, False), layer_norm_eps=(1e-12, 0.01), head_dim=(8, 16)),
)  # fmt: skip
_HYBRID_MOVES: tuple[Move, ...] = (
    *_COMMON[:1], leave_out("max_position_embeddings", "rms_norm_eps", "hidden_act", "rope_parameters"), stray,
    null("rope_scaling", "rope_parameters", "layer_types", "partial_rotary_factor"), hybrid_layers, one_rope(pairs=2),
    one_rope(pairs=2), put(attention_bias=(True, False), partial_rotary_factor=(0.25, 0.5, 1.0, None)),
)  # fmt: skip


def _heads(stem: str, *heads: str) -> tuple[str, ...]:
    return tuple(f"{stem}{head}" for head in heads or _TEXT_HEADS)


FAMILIES: dict[str, Drawn] = {
    "llama": Drawn("decoder", ("LlamaForCausalLM",), _decoder("llama"), (
        *_COMMON, _ROPE, _ROPE, put(attention_bias=(True, False), mlp_bias=(True, False)))),
    "mistral": Drawn("decoder", ("MistralForCausalLM",), _decoder("mistral", sliding_window=3), (*_COMMON, _ROPE, window)),
    "smollm3": Drawn("decoder", ("SmolLM3ForCausalLM",), _without(_decoder("smollm3"), "head_dim"), (
        *_COMMON, _ROPE, window, no_rope, no_rope, put(attention_bias=(True, False), mlp_bias=(True, False)))),
    "phi3": Drawn("decoder", ("Phi3ForCausalLM",), _without(_decoder("phi3"), "head_dim"), (
        *_COMMON, one_rope("default", "longrope", "yarn", "su", "linear"), one_rope("longrope", "yarn"), window,
        put(partial_rotary_factor=(0.5, 0.75, 1.0), original_max_position_embeddings=(4, 8, 16)))),
    "gemma": Drawn("decoder", ("GemmaForCausalLM",), _decoder("gemma", hidden_act="gelu"), (
        *_COMMON, activation("hidden_activation"), _ROPE, put(attention_bias=(True, False)))),
    "gemma2": Drawn("decoder", ("Gemma2ForCausalLM",), _decoder("gemma2", sliding_window=3, query_pre_attn_scalar=7), (
        *_GEMMA_MOVES, _ROPE)),
    "gemma3_text": Drawn("decoder", ("Gemma3ForCausalLM",), _copied(_gemma3_text), (*_GEMMA_MOVES, _LAYERED, _LAYERED, _LAYERED)),
    "gemma3": Drawn("decoder", ("Gemma3ForConditionalGeneration",), _gemma3, (*_GEMMA_MOVES, _LAYERED, _LAYERED), "text_config"),
    "qwen2": Drawn("decoder", ("Qwen2ForCausalLM",), _without(_decoder("qwen2"), "head_dim"), (*_COMMON, _ROPE, window, window)),
    "qwen3": Drawn("decoder", ("Qwen3ForCausalLM",), _decoder("qwen3"), (
        *_COMMON, _ROPE, window, window, put(attention_bias=(True, False)))),
    "qwen3_moe": Drawn("decoder", ("Qwen3MoeForCausalLM",), _decoder("qwen3_moe", **_MOE), (*_COMMON, _ROPE, window, routing, routing)),
    "qwen3_next": Drawn("decoder", ("Qwen3NextForCausalLM",), _hybrid("qwen3_next", **_SHARED), (*_HYBRID_MOVES, routing)),
    "qwen3_5_text": Drawn("decoder", ("Qwen3_5ForCausalLM",), _hybrid("qwen3_5_text"), _HYBRID_MOVES),
    "qwen3_5_moe_text": Drawn("decoder", ("Qwen3_5MoeForCausalLM",), _hybrid("qwen3_5_moe_text", **_SHARED), _HYBRID_MOVES),
    "qwen3_5": Drawn("decoder", ("Qwen3_5ForConditionalGeneration",), _wrapped("qwen3_5", _hybrid("qwen3_5_text")),
        _HYBRID_MOVES, "text_config"),
    "bert": Drawn("encoder", _heads("Bert"), _encoder("bert"), _ENCODER_MOVES),
    "roberta": Drawn("encoder", _heads("Roberta"), _encoder("roberta", pad_token_id=1), _ENCODER_MOVES),
    "xlm-roberta": Drawn("encoder", _heads("XLMRoberta"), _encoder("xlm-roberta", pad_token_id=1), _ENCODER_MOVES),
    "camembert": Drawn("encoder", _heads("Camembert"), _encoder("camembert", pad_token_id=1), _ENCODER_MOVES),
    "mpnet": Drawn("encoder", _heads("MPNet"), _without(_encoder("mpnet", pad_token_id=1), "type_vocab_size"), _ENCODER_MOVES),
    "distilbert": Drawn("encoder", _heads("DistilBert"), _distilbert, (
        activation("activation"), leave_out("max_position_embeddings", "activation"), stray, null("activation", "head_dim"),
        put(n_heads=(1, 8)))),
    "modernbert": Drawn("encoder", _heads("ModernBert"), _modernbert, (
        activation("hidden_activation", "classifier_activation"), stray, local_layers, local_layers,
        layer_ropes(("global_rope_theta", "local_rope_theta")), layer_ropes(("global_rope_theta", "local_rope_theta")),
        leave_out("max_position_embeddings", "norm_eps", "local_attention"), null("rope_scaling", "rope_parameters", "layer_types"),
        put(norm_bias=(True, False), attention_bias=(True, False), mlp_bias=(True, False), classifier_bias=(True, False),
            decoder_bias=(True, False), classifier_pooling=("cls", "mean"), norm_eps=(0.01, 1e-12)))),
    "nomic_bert": Drawn("encoder", _heads("NomicBert", "Model", "ForMaskedLM"), _encoder("nomic_bert", hidden_act="silu", pad_token_id=0), (
        *_ENCODER_MOVES, _ROPE, _ROPE, _ROPE)),
    "vit": Drawn("vision", ("ViTModel", "ViTForImageClassification"), _vision("vit"), (
        *_VISION_MOVES, activation("pooler_act"), put(pooler_output_size=(16, 32)), null("pooler_output_size"))),
    "dinov2": Drawn("vision", ("Dinov2Model",), _without(_vision("dinov2", mlp_ratio=2), "intermediate_size"), (
        *_VISION_MOVES, put(mlp_ratio=(1, 2, 4), use_swiglu_ffn=(True, False)), leave_out("mlp_ratio"))),
    "dinov2_with_registers": Drawn("vision", ("Dinov2WithRegistersModel",), _without(
        _vision("dinov2_with_registers", mlp_ratio=2), "intermediate_size"), (
        *_VISION_MOVES, put(num_register_tokens=(0, 1, 3), use_swiglu_ffn=(True, False)))),
    "dinov3_vit": Drawn("vision", ("DINOv3ViTModel",), _vision("dinov3_vit"), (
        *_VISION_MOVES, _ROPE, put(rope_theta=(50.0, 20), num_register_tokens=(0, 2), use_gated_mlp=(True, False)),
        put(query_bias=(True, False), key_bias=(True, False), value_bias=(True, False), proj_bias=(True, False), mlp_bias=(True, False)))),
    "clip_vision_model": Drawn("vision", ("CLIPVisionModel",), _vision("clip_vision_model"), _VISION_MOVES),
    "siglip_vision_model": Drawn("vision", ("SiglipVisionModel",), _vision("siglip_vision_model"), (
        *_VISION_MOVES, put(vision_use_head=(True, False)))),
}  # fmt: skip
