"""ModernBERT: local and full attention by layer, each with a rope of its own."""

from __future__ import annotations

from typing import Any

from flowc.importers.config import Config
from flowc.importers.encoders import BERT_NAMES, IDS, activation, encoder, head_of, mlm_head, prefix_of, symbols_of
from flowc.importers.family import Family, Shapes, imports
from flowc.importers.rope import by_layer, rope_stage

_THETAS = {"full_attention": ("global_rope_theta", 160000.0), "sliding_attention": ("local_rope_theta", 10000.0)}


@imports("modernbert")
def modernbert(config: Config, shapes: Shapes) -> Family:
    """HF `ModernBertModel` and its heads for masked words, sequences and tokens."""
    config.skip(
        "position_embedding_type", "layer_norm_eps", "embedding_dropout", "mlp_dropout", "deterministic_flash_attn",
        "sparse_prediction", "sparse_pred_ignore_index", "reference_compile", "repad_logits_with_grad",
        "initializer_cutoff_factor", "classifier_bias", "classifier_activation", "classifier_pooling", "decoder_bias",
    )  # fmt: skip
    symbols = symbols_of(config, BERT_NAMES, eps=None)
    config.skip(*(field for field, _ in _THETAS.values()))
    symbols["norm_eps"] = config.float("norm_eps", 1e-5)
    symbols["context_length"] = config.int("max_position_embeddings", 8192)
    types = _layer_types(config, symbols["layers"])
    reach = config.int("sliding_window", config.int("local_attention", 128) // 2)
    if reach < 0 and "sliding_attention" in types:
        field = "sliding_window" if config.has("sliding_window") else "local_attention"
        config.refuse(field, "a token would not even see itself")
    symbols["layer_types"] = types
    symbols["reach"] = [reach if t == "sliding_attention" else None for t in types]
    symbols["attn_norm"] = [i > 0 for i in range(len(types))]
    norm_bias = {} if config.bool("norm_bias", False) else {"bias": False}
    layer: dict[str, Any] = {
        "prefix": f"{prefix_of(shapes, 'model')}layers.{{i}}",
        "activation": activation(config, "hidden_activation"),
        "rope": "$layer_types[i]",
        "reach": "$reach[i]",
        "attn_norm": "$attn_norm[i]",
    }
    for field in ("attention_bias", "mlp_bias", "norm_bias"):
        if config.bool(field, False):
            layer[field] = True
    p = prefix_of(shapes, "model")
    trunk: list[Any] = [
        {"embed": {"weight": f"{p}embeddings.tok_embeddings.weight"}},
        {"layer_norm": {"weight": f"{p}embeddings.norm.weight", **norm_bias}},
        *[{"rope_tables": _rope(config, t, symbols["head_dim"])} for t in _THETAS if t in types],
        {"repeat": {"count": "$layers", "body": [{"modernbert_layer": layer}]}},
        {"layer_norm": {"weight": f"{p}final_norm.weight", **norm_bias}},
    ]
    inputs = {"input_ids": IDS, "attention_mask": IDS}
    return encoder(config, shapes, symbols, trunk, inputs, head=_head(config, shapes, norm_bias))


def _layer_types(config: Config, layers: int) -> list[str]:
    """What each layer attends to: named one by one, or every n-th layer in full, from the first on."""
    every = config.int("global_attn_every_n_layers", 3)
    types = config.list("layer_types", None)
    if types is None:
        return ["sliding_attention" if i % every else "full_attention" for i in range(layers)]
    if len(types) != layers or any(t not in _THETAS for t in types):
        config.refuse("layer_types", f"flowc knows {', '.join(_THETAS)}, one for each of the {layers} layers")
        return ["full_attention"] * layers
    return types


def _rope(config: Config, layer_type: str, head_dim: int) -> dict[str, Any]:
    field, theta = _THETAS[layer_type]
    found = by_layer(config, layer_type, base=field, theta=theta, scaled=True)
    return rope_stage(found, head_dim, name=layer_type)


def _head(config: Config, shapes: Shapes, norm_bias: dict[str, Any]) -> list[Any] | None:
    act, biased = activation(config, "classifier_activation"), config.bool("classifier_bias", False)
    match head_of(config, shapes=shapes, mlm="head.dense.weight"):
        case "ForMaskedLM":
            stage: dict[str, Any] = {"dense": "head.dense.weight", "norm": "head.norm.weight", "activation": act}
            if not biased:
                stage["dense_bias"] = False
            if norm_bias:
                stage["norm_bias"] = False
            return mlm_head(config, shapes, stage, "decoder", None, biased=config.bool("decoder_bias", True))
        case "ForSequenceClassification" | "ForTokenClassification" as which:
            pool: list[Any] = []
            if which == "ForSequenceClassification":
                pool = [{"pool": {"how": config.choice("classifier_pooling", {"cls": "cls", "mean": "mean"}, "cls")}}]
            return [
                *pool,
                {"linear": {"weight": "head.dense.weight", **({"bias": True} if biased else {})}},
                {"activation": act},
                {"layer_norm": {"weight": "head.norm.weight", **norm_bias}},
                {"linear": {"weight": "classifier.weight", "bias": True}},
            ]
        case _:
            return None
