from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import safetensors.numpy

from flowc.importers import import_checkpoint
from flowc.importers.family import families
from tests.importers.refusals import assert_refused, changed
from tests.oracle_io import case_folders

st: Any = safetensors.numpy  # its types are partly unknown

TYPES = {"llama", "mistral", "smollm3", "qwen2", "qwen3", "qwen3_moe", "gemma", "gemma2", "gemma3_text", "phi3"}


def _cases() -> list[str]:
    found, known = list[str](), TYPES & families().keys()
    for name, folder in case_folders().items():
        if (folder / "config_legacy.json").is_file():
            config = json.loads((folder / "config.json").read_text())
            found += [name] if config["model_type"] in known else []
    return sorted(found)


@pytest.mark.golden
@pytest.mark.parametrize("case", _cases())
def test_both_layouts_of_a_configuration_give_one_spec(case: str, tmp_path: Path) -> None:
    new = import_checkpoint(changed(case, tmp_path)).text(tmp_path)
    legacy = tmp_path / "config_legacy.json"
    legacy.replace(tmp_path / "config.json")
    assert import_checkpoint(tmp_path).text(tmp_path) == new


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("llama_mha", {"hidden_act": "laplace"}),
    ("llama_mha", {"rope_parameters": {"rope_type": "ntk", "rope_theta": 1e4}}),
    ("llama_mha", {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4, "surprise": 1}}),
    ("llama_mha", {"attention_multiplier": 0.5}),
    ("llama_rope_linear", {"partial_rotary_factor": 0.5}),
    ("llama_mha", {"rope_interleaved": True}),
    ("qwen2_bias", {"use_mrope": True}),
    ("llama_mha", {"architectures": ["LlamaForSequenceClassification"]}),
    ("gemma1_mqa", {"architectures": ["GemmaModel"]}),
    ("mistral_swa", {"attention_bias": True}),
    ("mistral_swa", {"attention_sinks": True}),
    ("qwen2_swa_yarn", {"layer_types": ["full_attention", "chunked_attention", "full_attention"]}),
    ("qwen2_swa_yarn", {"layer_types": ["full_attention"]}),
    ("qwen2_bias", {"layer_types": ["sliding_attention", "full_attention"]}),
    ("qwen3_tied", {"use_qk_clip": True}),
    ("qwen3_moe_norm", {"scoring_func": "sigmoid"}),
    ("qwen3_moe_norm", {"hidden_act": "swiglu_oai"}),
    ("qwen3_moe_norm", {"n_group": 4}),
    ("gemma1_mqa", {"hidden_act": "xielu"}),
    ("gemma1_mqa", {"use_bidirectional_attention": True}),
    ("gemma2_softcaps", {"hidden_activation": "laplace"}),
    ("gemma3_local_global", {"rope_parameters": {"rope_theta": 1e4, "rope_type": "default"}}),
    (
        "gemma3_local_global",
        {
            "rope_parameters": {
                "full_attention": {"rope_type": "proportional"},
                "sliding_attention": {"rope_type": "default"},
            }
        },
    ),
    ("gemma3_local_global", {"query_post_attn_scalar": 2}),
    ("phi3_full_rotary", {"lm_head_bias": True}),
    ("phi3_full_rotary", {"rope_parameters": {"rope_type": "dynamic_ntk", "rope_theta": 1e4}}),
    ("phi3_full_rotary", {"mup_width_multiplier": 8.0}),
    ("smollm3_nope", {"layer_types": ["full_attention", "sliding_attention"] * 2}),
    ("smollm3_nope", {"no_rope_layers": [1, 0]}),
    ("smollm3_nope", {"no_rope_layers": [1, 2, 1, 1]}),
    ("llama_mha", {"pruned_heads": {"0": [1]}}),
    ("qwen3_moe_norm", {"qkv_bias": True}),
]


@pytest.mark.golden
@pytest.mark.parametrize(("case", "fields"), REFUSED)
def test_a_field_that_is_not_understood_is_refused_by_name(case: str, fields: dict[str, Any], tmp_path: Path) -> None:
    assert_refused(case, tmp_path, **fields)


@pytest.mark.golden
@pytest.mark.parametrize(("case", "fields"), [
    ("llama_mha", {"is_llama_config": True, "rope_interleaved": False, "transformers.js_config": {"dtype": "q4"}}),
    ("qwen2_bias", {"use_mrope": False}),
    ("smollm3_nope", {"max_window_layers": 28, "pretraining_tp": 2}),
    ("gemma1_mqa", {"hidden_act": "gelu", "hidden_activation": "gelu_pytorch_tanh"}),
    ("gemma2_softcaps", {"hidden_act": "gelu", "cache_implementation": "hybrid", "sliding_window_size": 5}),
    ("llama_mha", {"unsloth_fixed": True, "unsloth_version": "2024.9", "max_length": 4096, "pruned_heads": {}}),
    ("qwen3_moe_norm", {"qkv_bias": False, "use_qk_norm": True, "shared_expert_intermediate_size": 0}),
    ("phi3_full_rotary", {"full_attn_mod": 1, "interpolate_factor": 1, "lm_head_bias": False, "mlp_bias": False}),
])  # fmt: skip
def test_fields_of_published_files_that_change_nothing(case: str, fields: dict[str, Any], tmp_path: Path) -> None:
    plain = import_checkpoint(changed(case, tmp_path)).text(tmp_path)
    assert import_checkpoint(changed(case, tmp_path, **fields)).text(tmp_path) == plain


@pytest.mark.golden
def test_what_a_configuration_leaves_out_is_what_its_class_says(tmp_path: Path) -> None:
    text = import_checkpoint(changed("mistral_swa", tmp_path, sliding_window=...)).text(tmp_path)
    assert "window: 4096" in text
    text = import_checkpoint(changed("mistral_swa", tmp_path, sliding_window=None)).text(tmp_path)
    assert "window" not in text


@pytest.mark.golden
def test_of_both_layouts_of_a_rope_the_older_counts(tmp_path: Path) -> None:
    """As in HuggingFace, whose `rope_scaling` replaces `rope_parameters`, theta and all."""
    scaling = {"rope_type": "linear", "factor": 4.0}
    both = import_checkpoint(changed("llama_rope_yarn_a", tmp_path, rope_scaling=scaling)).text(tmp_path)
    old = import_checkpoint(changed("llama_rope_yarn_a", tmp_path, rope_scaling=scaling, rope_parameters=...))
    assert "type: linear" in both
    assert both == old.text(tmp_path)
    both = import_checkpoint(changed("gemma3_local_global", tmp_path, rope_scaling=scaling)).text(tmp_path)
    assert "factor: 4.0" in both
    assert both.count("type: linear") == 1


@pytest.mark.golden
@pytest.mark.parametrize("same", [True, False])
def test_a_stored_head_that_differs_from_the_embedding_is_not_tied(same: bool, tmp_path: Path) -> None:
    checkpoint = st.load_file(case_folders()["qwen3_tied"] / "model.safetensors")
    head = checkpoint["model.embed_tokens.weight"].copy()
    if not same:
        head[-1, -1] += 1
    st.save_file({**checkpoint, "lm_head.weight": head}, changed("qwen3_tied", tmp_path) / "model.safetensors")
    text = import_checkpoint(tmp_path).text(tmp_path)
    assert ("lm_head: {tied: true}" in text) is same
    assert ("lm_head: {weight: lm_head.weight}" in text) is not same
