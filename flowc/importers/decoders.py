"""What the configurations of all decoder families have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from flowc.importers.config import Config
from flowc.importers.family import Family, Shapes
from flowc.importers.rope import Found, rope_stage, single

ACTIVATIONS = {
    "silu": "silu", "swish": "silu", "gelu": "gelu", "gelu_python": "gelu", "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh", "gelu_fast": "gelu_tanh", "gelu_accurate": "gelu_tanh", "gelu_python_tanh": "gelu_tanh",
    "gelu_10": "gelu_10", "quick_gelu": "quick_gelu", "relu": "relu", "relu2": "relu2", "leaky_relu": "leaky_relu",
    "mish": "mish", "tanh": "tanh", "sigmoid": "sigmoid", "linear": "linear",
}  # fmt: skip
"""HuggingFace's names of activations (`ACT2FN`) and ours."""


def decoder_symbols(config: Config, *, eps: float = 1e-6, kv_heads: int | None = None) -> dict[str, Any]:
    """The `model:` block of a decoder: sizes, epsilon, context and special tokens."""
    hidden, heads = config.int("hidden_size"), config.int("num_attention_heads")
    symbols: dict[str, Any] = {
        "hidden": hidden,
        "layers": config.int("num_hidden_layers"),
        "heads": heads,
        "kv_heads": config.int("num_key_value_heads", kv_heads if kv_heads is not None else heads),
        "head_dim": config.int("head_dim", hidden // heads),
        "ffn": config.int("intermediate_size"),
        "vocab": config.int("vocab_size"),
        "norm_eps": config.float("rms_norm_eps", eps),
        "context_length": config.int("max_position_embeddings"),
    }
    special_tokens(config, symbols)
    return symbols


def special_tokens(config: Config, symbols: dict[str, Any]) -> None:
    """Adds bos, eos and pad where the configuration names them."""
    for name in ("bos", "eos", "pad"):
        key = f"{name}_token_id"
        value = config.get(key)
        several = cast("list[Any]", value) if name == "eos" and isinstance(value, list) else [value]
        if value is not None and not all(type(token) is int for token in several):
            config.refuse(key, "it must be a token's number" + (", or a list of them" if name == "eos" else ""))
        elif tokens := end_tokens(value):  # -1 stands for none in many files
            symbols[name] = tokens if isinstance(value, list) else tokens[0]


def end_tokens(value: Any) -> list[int]:
    """The tokens that a field names: a number or a list of them, without what is no token's number."""
    several = cast("list[Any]", value) if isinstance(value, list) else [value]
    return [token for token in several if type(token) is int and token >= 0]


FULL, SLIDING = "full_attention", "sliding_attention"
ROPE_TENSORS = ("rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight")
"""GGUF's divisors of the rope's frequencies: llama3's scaling, and longrope's two sets."""


def layer_types(config: Config, default: Sequence[str]) -> list[str]:
    """Attention of each layer: as `layer_types` says, else the pattern of the family's HuggingFace class."""
    found = config.list("layer_types", list(default))
    if len(found) != len(default):
        config.refuse("layer_types", f"the model has {len(default)} layers, the list names {len(found)}")
    elif unknown := sorted({str(t) for t in found} - {FULL, SLIDING}):
        config.refuse("layer_types", f"flowc knows {FULL} and {SLIDING}, not {', '.join(unknown)}")
    else:
        return found
    return list(default)


def windows(config: Config, types: Sequence[str], window: int | None) -> list[int | None]:
    """Window of each layer; a sliding layer without `sliding_window` is refused."""
    if window is None and SLIDING in types:
        config.refuse("layer_types", "it names sliding layers, but no `sliding_window` is in force")
    return [window if t == SLIDING else None for t in types]


def per_layer(symbols: dict[str, Any], layer: dict[str, Any], field: str, values: Sequence[Any], usual: Any) -> None:
    """State a layer's field: left out where every layer has the usual value, once where all agree, else as a list."""
    if all(v == values[0] for v in values):
        if values[0] != usual:
            layer[field] = values[0]
        return
    symbols[f"{field}s"] = list(values)
    layer[field] = f"${field}s[i]"


def embedding(root: str = "model.") -> dict[str, Any]:
    """The `embed` stage."""
    return {"embed": {"weight": f"{root}embed_tokens.weight"}}


def repeat(*body: Any) -> dict[str, Any]:
    """All layers."""
    return {"repeat": {"count": "$layers", "body": list(body)}}


def plain_decoder(
    config: Config,
    shapes: Shapes,
    symbols: dict[str, Any],
    layers: dict[str, Any],
    *,
    tied: bool,
    ropes: Sequence[dict[str, Any]] | None = None,
    rope: Found | None = None,
    partial: bool = False,
    gemma: bool = False,
    softcap: float | None = None,
    root: str = "model.",
) -> Family:
    """Embedding, ropes, layers, a final RMSNorm and the head: what most families are around their layers.

    `ropes` are the fields of `rope_tables` stages, by default the one of `rope`, which by default is the one that the
    configuration states; without `partial` the family's class turns whole heads. `gemma` scales the embedding and has
    1 + weight in the norm; `root` stands before the names of all tensors but the head's.
    """
    if config.architecture and not config.architecture.endswith("ForCausalLM"):
        config.refuse("architectures", "flowc imports the *ForCausalLM class of a decoder")
    unused = spare_tensors(shapes)
    if ropes is None:
        found = single(config) if rope is None else rope
        ropes = (rope_stage(found, symbols["head_dim"], turns_part=partial),)
    flow: list[Any] = [
        embedding(root),
        *(["embed_scale"] if gemma else []),
        *({"rope_tables": fields} for fields in ropes),
        layers,
        {"gemma_rms_norm" if gemma else "rms_norm": {"weight": f"{root}norm.weight"}},
        "gather_last_token",
        head(config, shapes, tied=tied, allow_unused=unused),
        *([{"logit_softcap": {"cap": softcap}}] if softcap is not None else []),
    ]
    return Family(symbols, flow, allow_unused=unused)


def head(config: Config, shapes: Shapes, *, tied: bool, allow_unused: list[str]) -> dict[str, Any]:
    """The `lm_head` stage: tied as the configuration says (`tied` where it says nothing)."""
    if config.bool("tie_word_embeddings", tied):
        if "lm_head.weight" in shapes:
            allow_unused.append("lm_head.weight")
        return {"lm_head": {"tied": True}}
    return {"lm_head": {"weight": "lm_head.weight"}}


def spare_tensors(shapes: Shapes) -> list[str]:
    """Buffers of old checkpoints, and the rope's divisors of GGUF files: the configuration says both already."""
    patterns = ("*.rotary_emb.inv_freq", "*.attn.masked_bias", "*.attn.bias")
    return [p for p in patterns if any(n.endswith(p[1:]) for n in shapes)] + [n for n in ROPE_TENSORS if n in shapes]
