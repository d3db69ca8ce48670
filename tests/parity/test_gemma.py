"""What the oracle cases of Gemma do not reach: the composed layer, and the text model of a multimodal checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from flowc.build.compiled import Request
from flowc.compile import build, compile_file
from flowc.errors import SpecError
from flowc.frontend.state import Options
from flowc.importers import import_checkpoint
from tests.importers.refusals import changed
from tests.oracle_io import ROOT, Array, Oracle, case_folders
from tests.parity.harness import Model, past_of
from tests.weights.making import safetensors_bytes


def _built(example: str, folder: Path) -> Model:
    compiled = compile_file(ROOT / "examples" / f"{example}.yaml", Request())
    build(compiled, folder / example / "model.onnx", verify="off")
    return Model(compiled, folder / example)


def test_the_composed_layer_is_the_whole_one(tmp_path: Path) -> None:
    whole, composed = (_built(name, tmp_path) for name in ("gemma2", "gemma2-composed"))
    ids = np.random.default_rng(1).integers(0, 200, (2, 40))
    mask = np.ones_like(ids)
    mask[1, :6] = 0
    feeds: dict[str, Array] = {"input_ids": ids, "attention_mask": mask}
    one, other = whole.run("prefill", feeds), composed.run("prefill", feeds)
    assert one.keys() == other.keys()
    for name, value in one.items():
        np.testing.assert_allclose(other[name], value, atol=2e-5, err_msg=name)
    mask = np.concatenate([mask, np.ones((2, 1), mask.dtype)], axis=1)
    feeds = {"input_ids": ids[:, :1], "attention_mask": mask, **past_of(one)}
    one, other = whole.run("decode", feeds), composed.run("decode", feeds)
    for name, value in one.items():
        np.testing.assert_allclose(other[name], value, atol=2e-5, err_msg=name)


def _multimodal(folder: Path, root: str) -> Path:
    """The oracle's Gemma 3 as the text model of a multimodal checkpoint, beside a tensor of a vision tower."""
    changed("gemma3_local_global", folder)
    text = json.loads((folder / "config.json").read_text())
    whole = {"model_type": "gemma3", "text_config": text, "vision_config": {"hidden_size": 8}, "mm_tokens_per_image": 4}
    (folder / "config.json").write_text(json.dumps(whole))
    raw = (folder / "model.safetensors").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    data = raw[8 + length :]
    renamed = {k if k == "__metadata__" else root + k.removeprefix("model."): v for k, v in header.items()}
    end = len(data)
    tower = root.split(".")[0] + ".vision_tower.x" if root.startswith("model.") else "vision_tower.x"
    renamed[tower] = {"dtype": "F32", "shape": [1], "data_offsets": [end, end + 4]}
    (folder / "model.safetensors").write_bytes(safetensors_bytes(renamed, data + bytes(4)))
    return folder


@pytest.mark.golden
@pytest.mark.parametrize("root", ["model.language_model.", "language_model.model."])
def test_the_text_model_of_a_multimodal_checkpoint(root: str, tmp_path: Path) -> None:
    source, work = tmp_path / "source", tmp_path / "work"
    source.mkdir()
    work.mkdir()
    spec = work / "model.yaml"
    spec.write_text(import_checkpoint(_multimodal(source, root)).text(work))
    compiled = compile_file(spec, Request(options=Options(logits="all")))
    build(compiled, work / "model.onnx", verify="off")
    oracle = Oracle(case_folders()["gemma3_local_global"])
    feeds = {k: v for k, v in oracle.inputs("b2").items() if k != "position_ids"}
    got = Model(compiled, work).run("prefill", feeds)
    assert not oracle.mismatches("b2", {"logits": got["logits"]})


def test_a_field_inside_the_text_configuration_is_refused(tmp_path: Path) -> None:
    folder = _multimodal(tmp_path, "model.language_model.")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["use_bidirectional_attention"] = True
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(SpecError, match="'use_bidirectional_attention' of 'text_config'"):
        import_checkpoint(folder)


@pytest.mark.golden
def test_the_whole_of_a_multimodal_model_does_not_cap_its_logits(tmp_path: Path) -> None:
    """Gemma3ForConditionalGeneration leaves `final_logit_softcapping` to Gemma3ForCausalLM."""
    folder = _multimodal(tmp_path, "model.language_model.")
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["final_logit_softcapping"] = 5.0
    (folder / "config.json").write_text(json.dumps(config))
    assert "logit_softcap" not in import_checkpoint(folder).text(tmp_path)
