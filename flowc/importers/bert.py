"""BERT, and its descendants with the same layer: RoBERTa, XLM-RoBERTa, CamemBERT, MPNet, DistilBERT."""

from __future__ import annotations

from typing import Any

from flowc.importers.config import Config
from flowc.importers.encoders import (
    BERT_NAMES,
    IDS,
    activation,
    encoder,
    head_of,
    mlm_head,
    prefix_of,
    refuse_decoders,
    symbols_of,
    token_types,
)
from flowc.importers.family import Family, Shapes, imports


@imports("bert")
def bert(config: Config, shapes: Shapes) -> Family:
    """HF `BertModel`, `BertForMaskedLM`, `BertForSequenceClassification`, `BertForTokenClassification`."""
    refuse_decoders(config)
    config.skip("directionality", "pooler_fc_size", "pooler_num_attention_heads", "pooler_num_fc_layers",
                "pooler_size_per_head", "pooler_type")  # fmt: skip
    symbols = symbols_of(config, BERT_NAMES, eps=1e-12)
    symbols["context_length"] = config.int("max_position_embeddings", 512)
    p = prefix_of(shapes, "bert")
    act, inputs = activation(config, "hidden_act"), {"input_ids": IDS, "attention_mask": IDS}
    trunk = _embeddings(config, p, inputs, "column_positions")
    trunk.append(_layers({"prefix": f"{p}encoder.layer.{{i}}", "activation": act}))
    head: list[Any] | None = None
    t = "cls.predictions.transform"
    match head_of(config, shapes=shapes, mlm=f"{t}.dense.weight"):
        case "ForMaskedLM":
            stage = {"dense": f"{t}.dense.weight", "norm": f"{t}.LayerNorm.weight", "activation": act}
            head = mlm_head(config, shapes, stage, "cls.predictions.decoder", "cls.predictions.bias")
        case "ForSequenceClassification":
            head = [{"pooler": {"weight": f"{p}pooler.dense.weight"}}, _linear("classifier")]
        case "ForTokenClassification":
            head = [_linear("classifier")]
        case _:
            pass
    return encoder(config, shapes, symbols, trunk, inputs, pooler=f"{p}pooler.dense.weight", head=head)


@imports("roberta", "xlm-roberta", "camembert")
def roberta(config: Config, shapes: Shapes) -> Family:
    """HF `RobertaModel` and its heads; positions count tokens other than the padding token."""
    refuse_decoders(config)
    symbols = symbols_of(config, BERT_NAMES, eps=1e-12)
    pad = symbols.setdefault("pad", 1)
    symbols["context_length"] = config.int("max_position_embeddings", 512) - pad - 1
    p, inputs = prefix_of(shapes, "roberta"), {"input_ids": IDS, "attention_mask": IDS}
    trunk = _embeddings(config, p, inputs, {"positions_from_ids": {"pad": pad}})
    trunk.append(_layers({"prefix": f"{p}encoder.layer.{{i}}", "activation": activation(config, "hidden_act")}))
    head = _roberta_head(config, shapes)
    return encoder(config, shapes, symbols, trunk, inputs, pooler=f"{p}pooler.dense.weight", head=head)


@imports("mpnet")
def mpnet(config: Config, shapes: Shapes) -> Family:
    """HF `MPNetModel` and its heads: BERT's layer with a relative bias. 32 buckets, distance 128, pad 1 are fixed."""
    symbols = symbols_of(config, BERT_NAMES, eps=1e-12)
    symbols["context_length"] = config.int("max_position_embeddings", 512) - 2
    rows = config.int("relative_attention_num_buckets", 32)
    if rows < 32:
        config.refuse("relative_attention_num_buckets", "HuggingFace's MPNet always uses 32 buckets")
    p, inputs = prefix_of(shapes, "mpnet"), {"input_ids": IDS, "attention_mask": IDS}
    trunk = _embeddings(config, p, inputs, {"positions_from_ids": {"pad": 1}}, types=False)
    bias: dict[str, Any] = {
        "weight": f"{p}encoder.relative_attention_bias.weight", "buckets": 32, "max_distance": 128,
    }  # fmt: skip
    trunk.append({"relative_bias": bias if rows == 32 else {**bias, "rows": rows}})
    act = activation(config, "hidden_act")
    trunk.append(
        _layers({"prefix": f"{p}encoder.layer.{{i}}", "style": "mpnet", "activation": act, "bias": "relative"})
    )
    head = _roberta_head(config, shapes)
    return encoder(config, shapes, symbols, trunk, inputs, pooler=f"{p}pooler.dense.weight", head=head)


@imports("distilbert")
def distilbert(config: Config, shapes: Shapes) -> Family:
    """HF `DistilBertModel` and its heads: no token types, no pooler, an epsilon that no field tells."""
    names = {"hidden": "dim", "layers": "n_layers", "heads": "n_heads", "ffn": "hidden_dim"}
    symbols = symbols_of(config, names, eps=None)
    symbols["norm_eps"] = 1e-12
    symbols["context_length"] = config.int("max_position_embeddings", 512)
    # The sinusoids are the table's initial values; the checkpoint holds the table either way.
    config.skip("sinusoidal_pos_embds", "tie_weights_")
    p, inputs = prefix_of(shapes, "distilbert"), {"input_ids": IDS, "attention_mask": IDS}
    act = activation(config, "activation")
    trunk = _embeddings(config, p, inputs, "column_positions", types=False)
    trunk.append(_layers({"prefix": f"{p}transformer.layer.{{i}}", "style": "distilbert", "activation": act}))
    head: list[Any] | None = None
    match head_of(config, shapes=shapes, mlm="vocab_transform.weight"):
        case "ForMaskedLM":
            stage = {"dense": "vocab_transform.weight", "norm": "vocab_layer_norm.weight", "activation": act}
            head = mlm_head(config, shapes, stage, "vocab_projector", None)
        case "ForSequenceClassification":
            head = [{"pooler": {"weight": "pre_classifier.weight", "activation": "relu"}}, _linear("classifier")]
        case "ForTokenClassification":
            head = [_linear("classifier")]
        case _:
            pass
    return encoder(config, shapes, symbols, trunk, inputs, head=head)


def _embeddings(
    config: Config, prefix: str, inputs: dict[str, str], positions: Any, *, types: bool = True
) -> list[Any]:
    """Word, token-type and position embeddings, summed and normalised; `positions` makes the position ids."""
    e = f"{prefix}embeddings"
    return [
        {"embed": {"weight": f"{e}.word_embeddings.weight"}},
        *(token_types(config, f"{e}.token_type_embeddings.weight", inputs) if types else []),
        positions,
        {"gather_add": {"weight": f"{e}.position_embeddings.weight", "input": "position_ids"}},
        {"layer_norm": {"weight": f"{e}.LayerNorm.weight"}},
    ]


def _layers(layer: dict[str, Any]) -> dict[str, Any]:
    return {"repeat": {"count": "$layers", "body": [{"bert_encoder_layer": layer}]}}


def _linear(name: str) -> dict[str, Any]:
    return {"linear": {"weight": f"{name}.weight", "bias": True}}


def _roberta_head(config: Config, shapes: Shapes) -> list[Any] | None:
    """The heads of RoBERTa and MPNet: their activations are fixed."""
    match head_of(config, shapes=shapes, mlm="lm_head.dense.weight"):
        case "ForMaskedLM":
            stage = {"dense": "lm_head.dense.weight", "norm": "lm_head.layer_norm.weight", "activation": "gelu"}
            return mlm_head(config, shapes, stage, "lm_head.decoder", "lm_head.bias")
        case "ForSequenceClassification":
            return [{"pooler": {"weight": "classifier.dense.weight"}}, _linear("classifier.out_proj")]
        case "ForTokenClassification":
            return [_linear("classifier")]
        case _:
            return None
