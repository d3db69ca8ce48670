from __future__ import annotations

from flowc.stages import load_all

SEED = [
    "embed",
    "rope_tables",
    "zero_beta",
    "bind_decode_inputs",
    "attn_mask",
    "llama_decode_layer",
    "llama_decoder",
    "llama_kv_tap",
    "repeat",
    "named",
    "sequence",
    "rms_norm",
    "gather_last_token",
    "lm_head",
    "linear",
    "residual_save",
    "residual_add",
    "swiglu",
    "self_attn_prefill",
    "gdn_scan",
    "store_stream",
    "load_stream",
    "dual_stream",
    "custom",
    "bert_encoder_layer",
    "nomic_encoder_layer",
    "qwen3_decoder",
    "qwen3_decode_layer",
    "vit_self_attn",
    "layer_scale",
    "vision_swiglu_ffn",
    "cls_token_pool",
    "layer_norm",
    "gelu_ffn",
    "gather_from_input",
    "gather_add",
    "embed_scale",
    "gemma_rms_norm",
    "logit_softcap",
    "decode_rope_params",
    "gemma_decode_layer",
    "gemma_kv_tap",
    "geglu",
]


def test_all_stage_kinds_of_the_seed_are_there() -> None:
    assert len(set(SEED)) == 43
    assert set(SEED) - set(load_all()) == set()
