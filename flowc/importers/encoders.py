"""What the configurations of all text encoder families have in common."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from flowc.importers.config import Config
from flowc.importers.decoders import ACTIVATIONS, special_tokens
from flowc.importers.family import Family, Shapes

IDS = "int64[batch_size, sequence_length]"

HEADS = ("Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification")
"""Endings of the model classes that are understood: what stands behind the last hidden state."""


def symbols_of(config: Config, names: Mapping[str, str], *, eps: float | None) -> dict[str, Any]:
    """The `model:` block of an encoder.

    `names` are the configuration's names of hidden, layers, heads and ffn; `eps` stands where the configuration has no
    `layer_norm_eps`, None where the family has a field of its own.
    """
    # What stands in hub configurations for libraries that use the model, and an output of old versions.
    config.skip("output_past", "sentence_transformers", "sbert_ce_default_activation_function")
    hidden, heads = config.int(names["hidden"]), config.int(names["heads"])
    if hidden % heads:
        config.refuse(names["heads"], f"the width {hidden} does not split into {heads} heads")
    symbols: dict[str, Any] = {
        "hidden": hidden,
        "layers": config.int(names["layers"]),
        "heads": heads,
        "head_dim": hidden // heads,
        "ffn": config.int(names["ffn"]),
        "vocab": config.int("vocab_size"),
    }
    if eps is not None:
        symbols["norm_eps"] = config.float("layer_norm_eps", eps)
    special_tokens(config, symbols)
    return symbols


BERT_NAMES = {
    "hidden": "hidden_size", "layers": "num_hidden_layers", "heads": "num_attention_heads", "ffn": "intermediate_size",
}  # fmt: skip


def head_of(config: Config, heads: Sequence[str] = HEADS, shapes: Shapes | None = None, mlm: str = "") -> str:
    """Which head the checkpoint's class has; others than `heads` are refused by name.

    A configuration that names no class has the masked-LM head whose tensor `mlm` is there, or none. One that names the
    masked-LM class of a file without that head has none: sentence-transformers publishes trunks so.
    """
    name = config.architecture
    if not name:
        return "ForMaskedLM" if shapes is not None and mlm in shapes else "Model"
    found = next((h for h in heads if name.endswith(h) and not name.endswith("LMHeadModel")), None)
    if found is None:
        config.refuse("architectures", f"flowc imports classes that end in {', '.join(heads)}")
    if found == "ForMaskedLM" and shapes is not None and not any(n.startswith(mlm.partition(".")[0]) for n in shapes):
        return "Model"
    return found or "Model"


def prefix_of(shapes: Shapes, name: str) -> str:
    """`name.` where the checkpoint's trunk stands under that name, else an empty text."""
    return f"{name}." if any(n.startswith(f"{name}.") for n in shapes) else ""


def activation(config: Config, field: str, default: str = "gelu") -> str:
    """Our name of the activation that a field names."""
    return config.choice(field, ACTIVATIONS, default)


def refuse_decoders(config: Config) -> None:
    """Refuse what makes another model of a BERT: causal or cross attention, positions other than learned ones."""
    config.only("is_decoder", False)
    config.only("add_cross_attention", False)
    config.only("position_embedding_type", "absolute")


def token_types(config: Config, weight: str, inputs: dict[str, str]) -> list[Any]:
    """The stage that adds token-type embeddings: by an input, or the only row where there is one type."""
    types = config.int("type_vocab_size", 2)
    if types == 0:
        return []
    if types == 1:
        return [{"gather_add": {"weight": weight, "row": 0}}]
    inputs["token_type_ids"] = IDS
    return [{"gather_add": {"weight": weight, "input": "token_type_ids"}}]


def mlm_head(
    config: Config, shapes: Shapes, stage: dict[str, Any], decoder: str, bias: str | None, *, biased: bool = True
) -> list[Any]:
    """The `mlm_head` stage: `stage` completed by the decoder, which is tied unless the configuration says otherwise.

    `decoder` is the last linear's name; its bias is also kept as `bias` (HF ties both, but not two that differ).
    """
    names = [n for n in (f"{decoder}.bias", bias) if n is not None]
    if not config.bool("tie_word_embeddings", True):
        stage["decoder"] = f"{decoder}.weight"
    if biased:
        stage["decoder_bias"] = next((n for n in names if n in shapes), names[-1])
    return [{"mlm_head": stage}]


def encoder(
    config: Config,
    shapes: Shapes,
    symbols: dict[str, Any],
    trunk: list[Any],
    inputs: dict[str, str],
    *,
    pooler: str | None = None,
    head: list[Any] | None = None,
) -> Family:
    """The family of a trunk with what stands behind it: BERT's pooler, if its weight is there, or a head.

    Tensors that HuggingFace would leave aside too (heads of other classes, buffers) may be spare.
    """
    config.skip("tie_word_embeddings")
    flow = list(trunk)
    if head is not None:
        flow += [{"output": "last_hidden_state"}, *head]
    elif pooler is not None and pooler in shapes:
        flow.append({"pooler": {"weight": pooler, "output": "pooler_output"}})
    place = len(trunk) + (head is not None)
    return Family(
        symbols, flow, inputs, _spare(shapes, flow, symbols["layers"]), "logits" if head is not None else None, place
    )


_SPARE = (
    "position_ids", "token_type_ids", "pooler.", "cls.", "lm_head.", "classifier.", "qa_outputs.", "pre_classifier.",
    "vocab_", "head.", "decoder.",
)  # fmt: skip
"""How tensors begin, at any dot of their names, that belong to buffers and heads."""


def _spare(shapes: Shapes, flow: list[Any], layers: int) -> list[str]:
    """Patterns of tensors outside the layers that no stage of the flow names, as far as HF would ignore them too."""
    named = {text.removesuffix(".weight") for text in _texts(flow)}
    spare: list[str] = []
    for name in shapes:
        stem = name.rpartition(".")[0]
        if name in named or stem in named or re.search(r"\.layers?\.\d+\.", f".{name}"):
            continue
        if any(f".{part}" in f".{name}" for part in _SPARE):
            spare.append(name)
    return spare


def _texts(value: Any) -> list[str]:
    """Every text in a nest of lists and mappings."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, Mapping):
        value = list(cast("Mapping[str, Any]", value).values())
    return [text for item in cast("list[Any]", value) for text in _texts(item)] if isinstance(value, list) else []
