from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flowc.importers import import_checkpoint
from tests.importers.refusals import assert_refused, changed

REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("qwen3_next_dense", {"architectures": ["Qwen3NextForSequenceClassification"]}),
    ("qwen3_next_dense", {"hidden_act": "sigmoid"}),
    ("qwen3_next_dense", {"use_sliding_window": True}),
    ("qwen3_next_dense", {"layer_types": ["linear_attention", "sliding_attention", "linear_attention"]}),
    ("qwen3_next_dense", {"layer_types": ["linear_attention"]}),
    ("qwen3_next_dense", {"rope_parameters": {"rope_type": "ntk", "rope_theta": 1e4}}),
    ("qwen3_next_moe", {"linear_conv_kernel_dim": 1}),
    ("qwen3_5_text", {"linear_conv_bias": True}),
    ("qwen3_5_moe_text", {"moe_router_scale": 2.0}),
]


@pytest.mark.golden
@pytest.mark.parametrize(("case", "fields"), REFUSED)
def test_a_field_that_is_not_understood_is_refused_by_name(case: str, fields: dict[str, Any], tmp_path: Path) -> None:
    assert_refused(case, tmp_path, **fields)


@pytest.mark.golden
@pytest.mark.parametrize("case", ["qwen3_next_dense", "qwen3_next_moe"])
def test_both_layouts_of_a_configuration_give_one_spec(case: str, tmp_path: Path) -> None:
    new = import_checkpoint(changed(case, tmp_path)).text(tmp_path)
    (tmp_path / "config_legacy.json").replace(tmp_path / "config.json")
    assert import_checkpoint(tmp_path).text(tmp_path) == new


@pytest.mark.golden
def test_what_a_configuration_leaves_out_is_what_its_class_says(tmp_path: Path) -> None:
    text = import_checkpoint(changed("qwen3_5_text", tmp_path, layer_types=..., rms_norm_eps=...)).text(tmp_path)
    assert "layer_types: [linear_attention, linear_attention, linear_attention, full_attention]" in text
    assert "norm_eps: 1.0e-06" in text
    every_second = changed("qwen3_5_text", tmp_path, layer_types=..., full_attention_interval=2)
    types = "[linear_attention, full_attention, linear_attention, full_attention]"
    assert types in import_checkpoint(every_second).text(tmp_path)
