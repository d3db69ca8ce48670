"""NomicBERT: HuggingFace's own configuration, and the GPT-2-flavoured one of the hub's remote code."""

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
from flowc.importers.nomic_vision import is_nomic_vision, nomic_vision
from flowc.importers.rope import rope_stage, single

_GATES = {"swiglu": "silu", "geglu": "gelu"}
_HUB_NAMES = {"hidden": "n_embd", "layers": "n_layer", "heads": "n_head", "ffn": "n_inner"}


@imports("nomic_bert")
def nomic_bert(config: Config, shapes: Shapes) -> Family:
    """HF `NomicBertModel`, `NomicBertForMaskedLM`; `NomicBertModel`, `NomicBertForPreTraining` of the remote code.

    The vision model has the same model type.
    """
    if is_nomic_vision(config):
        return nomic_vision(config, shapes)
    p = prefix_of(shapes, "nomic_bert")
    prefix = f"{p}encoder.layers.{{i}}"
    if config.has("n_embd"):
        symbols, rope, layer = _hub(config, shapes, prefix)
        length = config.int("n_positions", 2048)
    else:
        refuse_decoders(config)
        symbols = symbols_of(config, BERT_NAMES, eps=1e-12)
        length = config.int("max_position_embeddings", 2048)
        symbols["head_dim"] = config.int("head_dim", symbols["head_dim"])
        rope = rope_stage(single(config, theta=1000.0), symbols["head_dim"])
        layer = {"prefix": prefix, "activation": activation(config, "hidden_act", "silu")}
    symbols.setdefault("pad", 0)
    symbols["context_length"] = length
    inputs = {"input_ids": IDS, "attention_mask": IDS}
    trunk: list[Any] = [
        {"embed": {"weight": f"{p}embeddings.word_embeddings.weight"}},
        *token_types(config, f"{p}embeddings.token_type_embeddings.weight", inputs),
        {"layer_norm": {"weight": f"{p}emb_ln.weight"}},
        {"rope_tables": rope},
        {"repeat": {"count": "$layers", "body": [{"nomic_encoder_layer": layer}]}},
    ]
    head, t = None, "cls.predictions.transform"
    heads = ("Model", "ForMaskedLM", "ForPreTraining")
    if head_of(config, heads, shapes, mlm=f"{t}.dense.weight") != "Model":
        stage = {"dense": f"{t}.dense.weight", "norm": f"{t}.layer_norm.weight", "activation": layer["activation"]}
        head = mlm_head(config, shapes, stage, "cls.predictions.decoder", "cls.predictions.bias")
    return encoder(config, shapes, symbols, trunk, inputs, head=head)


def _hub(config: Config, shapes: Shapes, prefix: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Symbols, rope and layer of the remote code's configuration; what it does differently is refused."""
    for field in ("prenorm", "causal", "use_rms_norm", "parallel_block", "scale_attn_by_inverse_layer_idx"):
        config.only(field, False)
    config.only("scale_attn_weights", True)
    config.only("rotary_emb_scale_base", why="xPos scaling of the rope is not supported")
    config.only("rotary_scaling_factor", why="the rope's dynamic scaling beyond the trained length is not supported")
    config.skip(
        "attn_pdrop", "dense_seq_output", "fused_bias_fc", "fused_dropout_add_ln", "max_trained_positions",
        "parallel_block_tied_norm", "reorder_and_upcast_attn", "split_last_dim", "summary_activation",
        "summary_first_dropout", "summary_proj_to_labels", "summary_type", "summary_use_proj", "use_flash_attn",
        "use_xentropy",
    )  # fmt: skip
    first = prefix.replace("{i}", "0")
    up = shapes.get(f"{first}.mlp.fc11.weight")
    if up is not None:
        config.data["n_inner"] = up[0]  # the remote code rounds it up
    symbols = symbols_of(config, _HUB_NAMES, eps=None)
    multiple = config.int("pad_vocab_size_multiple", 1)
    symbols["vocab"] = -(-symbols["vocab"] // multiple) * multiple
    symbols["norm_eps"] = config.float("layer_norm_epsilon", 1e-5)
    head_dim = symbols["head_dim"]
    rope: dict[str, Any] = {"theta": config.float("rotary_emb_base", 10000.0), "head_dim": head_dim}
    rotary = int(head_dim * config.float("rotary_emb_fraction", 0.0))
    if rotary == 0:
        config.refuse("rotary_emb_fraction", "without a rope the remote code has learned positions")
    elif rotary != head_dim:
        rope["rotary_dim"] = rotary
    layer: dict[str, Any] = {"prefix": prefix, "activation": config.choice("activation_function", _GATES, "gelu")}
    for ours, theirs, default in (
        ("interleaved", "rotary_emb_interleaved", False), ("attention_bias", "qkv_proj_bias", True),
        ("up_bias", "mlp_fc1_bias", True), ("down_bias", "mlp_fc2_bias", True),
    ):  # fmt: skip
        if config.bool(theirs, default):
            layer[ours] = True
    return symbols, rope, layer
