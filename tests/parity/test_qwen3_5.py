"""What the oracle cases of Qwen3.5 do not reach: the language model inside a checkpoint for images too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowc.errors import SpecError
from flowc.importers import import_checkpoint
from flowc.ir.interpret import interpret
from flowc.ir.rope import RopeFacts
from tests.importers.refusals import changed
from tests.oracle_io import Oracle, case_folders
from tests.parity.harness import make
from tests.weights.making import safetensors_bytes


def multimodal(case: str, folder: Path, **text_fields: Any) -> Path:
    """An oracle's text model as part of a whole one, beside tensors for images and for speculation."""
    changed(case, folder)
    text = json.loads((folder / "config.json").read_text())
    tied = text.pop("tie_word_embeddings")
    whole = {"model_type": text["model_type"].removesuffix("_text"), "text_config": {**text, **text_fields},
             "vision_config": {"hidden_size": 8}, "image_token_id": 5, "tie_word_embeddings": tied}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(whole))
    raw = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header, data = json.loads(raw[8 : 8 + length]), raw[8 + length :]
    renamed = {
        "model.language_model." + k.removeprefix("model.") if k.startswith("model.") else k: v
        for k, v in header.items()
    }
    for name in ("model.visual.blocks.0.norm1.weight", "mtp.norm.weight"):
        renamed[name] = {"dtype": "F32", "shape": [1], "data_offsets": [len(data), len(data) + 4]}
        data += bytes(4)
    (folder / "model.safetensors").write_bytes(safetensors_bytes(renamed, data))
    return folder


@pytest.mark.golden
@pytest.mark.parametrize("case", ["qwen3_5_text_b", "qwen3_5_moe_text"])
def test_the_text_model_of_a_multimodal_checkpoint(case: str, tmp_path: Path) -> None:
    source, work = tmp_path / "source", tmp_path / "work"
    source.mkdir()
    work.mkdir()
    model = make(multimodal(case, source, attn_output_gate=True, mamba_ssm_dtype="float32"), "ort-cpu", work)
    oracle = Oracle(case_folders()[case])
    inputs = oracle.inputs("b2")
    feeds = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    kept = inputs["attention_mask"].astype(bool)
    found = model.run("prefill", feeds)["logits"]
    np.testing.assert_allclose(found[kept], oracle.expected("b2")["logits"][kept], atol=5e-4)


@pytest.mark.golden
@pytest.mark.parametrize(
    "fields", [{"attn_output_gate": False}, {"mamba_ssm_dtype": "bfloat16"}, {"model_type": "qwen4_text"}], ids=str
)
def test_a_field_of_the_text_model_that_is_not_understood_is_refused(fields: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        import_checkpoint(multimodal("qwen3_5_text_b", tmp_path, **fields))
    (name,) = fields
    assert any(f"'{name}'" in d.message and d.span is not None for d in caught.value.diagnostics)


@pytest.mark.golden
@pytest.mark.parametrize("target", ["ort-cpu", "portable"])
def test_an_odd_part_of_a_head_turns_one_channel_more(target: str, tmp_path: Path) -> None:
    """HuggingFace: exponents of `arange(0, 5, 2) / 5`, so three pairs of channels."""
    np.testing.assert_allclose(RopeFacts(1e5, 5).frequencies(), [1, 1e-2, 1e-4], rtol=1e-6)
    folder, work = tmp_path / "source", tmp_path / "work"
    folder.mkdir()
    work.mkdir()
    rope = {"rope_type": "default", "rope_theta": 1e5, "partial_rotary_factor": 0.3125}
    model = make(changed("qwen3_5_text", folder, rope_parameters=rope), target, work)
    inputs = Oracle(case_folders()["qwen3_5_text"]).inputs("b1")
    feeds = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    assert model.compiled.checkpoint is not None
    meant = interpret(model.compiled.expanded["prefill"], feeds, model.compiled.checkpoint.read)
    np.testing.assert_allclose(model.run("prefill", feeds)["logits"], meant["logits"], atol=5e-4)
