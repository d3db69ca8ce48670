"""What old, mixed and careless files make of a sound configuration: moves that the draws apply to one."""

from __future__ import annotations

import random
from collections.abc import Callable
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
    ("rope_parameters", {"rope_theta": 50.0, "rope_type": "default"}), ("rope_parameters", None),
    ("max_window_layers", 1),
    ("no_rope_layers", [1, 0, 1, 1]), ("sliding_window_pattern", 2), ("_sliding_window_pattern", 2), ("norm_eps", 0.1),
    ("layer_norm_eps", 0.1), ("rms_norm_eps", 0.1), ("position_embedding_type", "absolute"), ("local_attention", 4),
    ("qkv_bias", False), ("use_cache", False), ("pretraining_tp", 2), ("attention_dropout", 0.3), ("is_decoder", False),
    ("global_attn_every_n_layers", 2), ("max_position_embeddings", 40), ("intermediate_size", 24),
    ("type_vocab_size", 2),
)  # fmt: skip


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
        found["original_max_position_embeddings"] = r.choice((4, 8, 9, 16, 32, 64))
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


def one_rope(*kinds: str, pairs: int = 8) -> Move:
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


def layer_ropes(old: tuple[str, str], pairs: int = 8) -> Move:
    """Ropes by layer type: entries, old fields (`old`: global and local theta), or both."""
    kinds = ("default", "default", "linear", "llama3", "yarn", "longrope", "dynamic")

    def move(r: random.Random, c: Fields) -> None:
        style = r.randrange(6)
        c.pop("rope_parameters", None)
        if style in (0, 1, 5):
            types = r.choice(((FULL, SLIDING), (FULL, SLIDING), (FULL, SLIDING), (FULL,), (SLIDING,)))
            entries: Fields = {t: r.choice((rope_values(r, pairs, kinds),) * 8 + (None,)) for t in types}
            c["rope_parameters"] = entries
            if r.random() < 0.1:
                entries["truncate"] = r.choice((False, True, None))
            if r.random() < 0.05:
                entries["rope_theta"] = 12.0
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
        [r.choice((0, 1)) for _ in range(layers)], [r.choice((0, 1)) for _ in range(layers + 2)],
        None, [1] * (layers - 1),
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
    fields: tuple[tuple[str, tuple[Any, ...]], ...] = (
        ("norm_topk_prob", (True, False)), ("decoder_sparse_step", (1, 2, 3)),
        ("mlp_only_layers", ([0], [], [1], None)),
        ("num_experts_per_tok", (1, 2, 3)), ("num_experts", (3, 4, 0)),
    )  # fmt: skip
    for name, values in fields:
        if r.random() < 0.5:
            c[name] = r.choice(values)
    if c.get("model_type") == "qwen3_moe" and r.random() < 0.4:
        c["num_local_experts"] = r.choice((3, 4))
        if r.random() < 0.5:
            c.pop("num_experts", None)
