"""Parity through GGUF: the oracles' checkpoints as llama.cpp's converter would write them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowc.errors import SpecError
from flowc.importers import import_checkpoint
from tests.importers import making_gguf
from tests.importers.making_gguf import convert
from tests.importers.refusals import changed
from tests.oracle_io import Array, Oracle, case_folders
from tests.parity.harness import check_case, make

CASES = [
    "llama_mha", "llama_gqa4_bias", "llama_gqa3_bf16_sharded", "llama3_rope_a", "llama3_rope_b", "llama_rope_linear",
    "llama_rope_yarn_a", "smollm3_nope", "qwen2_bias", "qwen3_tied", "qwen3_gqa4_bias_yarn", "qwen3_moe_norm",
    "gemma1_mqa", "gemma3_270m_like", "phi3_full_rotary", "phi3_partial_short", "phi3_partial_long",
]  # fmt: skip
"""Cases whose every option GGUF can say."""


def _folder(case: str) -> Path:
    return case_folders()[case]


@pytest.mark.golden
@pytest.mark.parametrize("target", ["ort-cpu", "portable"])
@pytest.mark.parametrize("case", CASES)
def test_a_gguf_equals_huggingface(case: str, target: str, tmp_path: Path) -> None:
    oracle = Oracle(_folder(case))
    oracle.folder = convert(oracle.folder, tmp_path / "model.gguf")
    checks = check_case(oracle, target)
    bad = [f"{c.what}: {c.error:.3g} (allowed {c.allowed:g})" for c in checks if not c.good]
    assert checks
    assert not bad, "\n".join(bad[:20])


@pytest.mark.golden
@pytest.mark.parametrize("case", ["gemma2_softcaps", "gemma3_local_global"])
def test_the_scale_of_the_scores_is_the_architectures(case: str, tmp_path: Path) -> None:
    """GGUF does not say `query_pre_attn_scalar`; the same checkpoint with a head's width there is what it means."""
    folder, work = tmp_path / "folder", [tmp_path / "one", tmp_path / "other"]
    for path in (folder, *work):
        path.mkdir()
    head_dim = json.loads((_folder(case) / "config.json").read_text())["head_dim"]
    changed(case, folder, query_pre_attn_scalar=head_dim)
    gguf = convert(folder, tmp_path / "model.gguf")
    feeds = {k: v for k, v in Oracle(_folder(case)).inputs("b2").items() if k != "position_ids"}
    one, other = (
        make(path, "ort-cpu", at).run("prefill", feeds) for path, at in zip((folder, gguf), work, strict=True)
    )
    assert np.ptp(one["logits"]) > 1
    np.testing.assert_allclose(one["logits"], other["logits"], atol=2e-5)


@pytest.mark.golden
@pytest.mark.parametrize(("case", "rewrite"), [("llama_mha", "interleave"), ("gemma1_mqa", "plus_one")])
def test_parity_sees_a_rewrite_that_is_not_undone(
    case: str, rewrite: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def left_out(value: Array, *_: int) -> Array:
        return value

    monkeypatch.setattr(making_gguf, rewrite, left_out)
    oracle = Oracle(_folder(case))
    oracle.folder = convert(oracle.folder, tmp_path / "model.gguf")
    assert any("prefill logits" in c.what for c in check_case(oracle, "ort-cpu") if not c.good)


REFUSED: list[tuple[str, str, dict[str, Any]]] = [
    ("llama_mha", "llama.expert_gating_func", {"expert_gating_func": 2}),
    ("llama_mha", "llama.logit_scale", {"logit_scale": 2.0}),
    ("llama_mha", "llama.attention.sliding_window", {"attention__sliding_window": 4}),
    ("llama_mha", "llama.attention.layer_norm_rms_epsilon", {"attention__layer_norm_rms_epsilon": None}),
    ("llama_mha", "llama.rope.dimension_count", {"rope__dimension_count": 4}),
    ("llama_mha", "llama.attention.head_count_kv", {"attention__head_count_kv": [4, 4, 4]}),
    ("llama_mha", "llama.rope.scaling.attn_factor", {"rope__scaling__attn_factor": 1.5}),
    ("gemma3_270m_like", "gemma3.attention.sliding_window", {"attention__sliding_window": 0}),
]


@pytest.mark.golden
@pytest.mark.parametrize(("case", "key", "metadata"), REFUSED)
def test_metadata_that_changes_the_numbers_is_refused(
    case: str, key: str, metadata: dict[str, Any], tmp_path: Path
) -> None:
    gguf = convert(_folder(case), tmp_path / "model.gguf", **metadata)
    with pytest.raises(SpecError, match=re.escape(f"'{key}'")):
        import_checkpoint(gguf)


@pytest.mark.golden
@pytest.mark.parametrize(("factor", "read"), [(4.0, "type: linear, factor: 4.0"), (0.0, "head_dim: 12}")])
def test_a_factor_without_a_type_is_linear_as_in_llama_cpp(factor: float, read: str, tmp_path: Path) -> None:
    gguf = convert(_folder("llama_mha"), tmp_path / "model.gguf", rope__scaling__factor=factor)
    assert read in import_checkpoint(gguf).text(tmp_path)


@pytest.mark.golden
def test_what_a_gguf_may_leave_out_is_what_llama_cpp_takes_for_it(tmp_path: Path) -> None:
    silent = {"rope__freq_base": None, "attention__head_count_kv": None}
    stated = {"rope__freq_base": 10000.0, "attention__head_count_kv": 3}
    texts = [import_checkpoint(convert(_folder("gemma1_mha"), tmp_path / "model.gguf", **more)).text(tmp_path)
             for more in (silent, stated)]  # fmt: skip
    assert texts[0] == texts[1]
    assert "kv_heads: 3" in texts[0]


@pytest.mark.golden
def test_an_unknown_rope_type_is_refused(tmp_path: Path) -> None:
    gguf = convert(_folder("llama_mha"), tmp_path / "model.gguf", rope__scaling__type="spiral")
    with pytest.raises(SpecError, match="spiral"):
        import_checkpoint(gguf)
