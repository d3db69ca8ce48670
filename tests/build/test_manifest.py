from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flowc.build import manifest
from flowc.errors import CheckFailed, FlowError, SpecError, WeightsError
from tests.runtime.tiny import TinyLlama


@pytest.fixture
def built(tmp_path: Path) -> Path:
    return TinyLlama(eos=(3, 5)).write(tmp_path / "out")


def codes(error: FlowError) -> list[str]:
    return [d.code for d in error.diagnostics]


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("model.onnx", "unified"),
        ("model.prefill.onnx", "prefill"),
        ("model.decode.onnx", "decode"),
        ("model.flowc.json", None),
        (".", None),
    ],
)
def test_any_file_of_a_model_leads_to_its_manifest(built: Path, name: str, given: str | None) -> None:
    found = manifest.load(built.parent / name)
    assert found.given == given
    assert found.kind == "decoder"
    assert found.model.eos == (3, 5)
    assert set(found.graphs) == {"unified", "prefill", "decode"}
    assert found.graph_path("decode") == built.parent / "model.decode.onnx"


@pytest.mark.parametrize("name", ["absent.onnx", "notes.txt", "other.onnx", "other.decode.onnx", "empty"])
def test_a_path_that_is_no_model(built: Path, name: str) -> None:
    (built.parent / "notes.txt").write_text("hello")
    (built.parent / "other.onnx").write_bytes(b"")
    (built.parent / "empty").mkdir()
    with pytest.raises(SpecError) as caught:
        manifest.load(built.parent / name)
    assert codes(caught.value) == ["not-a-model"]


def test_a_graph_that_the_manifest_does_not_name(built: Path) -> None:
    (built.parent / "model.encode.onnx").write_bytes(b"")
    with pytest.raises(SpecError, match=r"not one of the graphs of model\.flowc\.json"):
        manifest.load(built.parent / "model.encode.onnx")


@pytest.mark.parametrize("text", ["", "{", "[]", "\xff"])
def test_a_manifest_that_is_not_one(built: Path, text: str) -> None:
    built.write_text(text, encoding="latin-1")
    with pytest.raises(SpecError) as caught:
        manifest.load(built)
    assert codes(caught.value) == ["bad-manifest"]


def test_all_that_is_wrong_with_a_manifest_is_told_at_once(built: Path) -> None:
    raw: dict[str, Any] = json.loads(built.read_text())
    raw["graphs"]["decode"]["file"] = "../model.decode.onnx"
    raw["graphs"]["other"] = raw["graphs"]["unified"]
    raw["kind"] = "decorator"
    raw["assume"] = "nothing"
    raw["model"]["vocab"] = "many"
    raw["model"]["eos"] = [True]
    raw["tokenizer"] = {"file": "tokenizer.json"}
    raw["data"] = [{"file": "/data", "bytes": "all"}]
    raw["context"] = [64]
    raw["skip_passes"] = [3]
    raw["tensors"] = {"a": "2x3", "b": "", "c": "2x-3", "d": 5}
    raw["in_place"] = [{"file": "/weights", "header_sha256": "", "bytes": 1, "modified_ns": "today"}]
    built.write_text(json.dumps(raw))
    with pytest.raises(SpecError) as caught:
        manifest.load(built)
    text = str(caught.value)
    for part in (
        "graphs.decode: 'file' is not a bare file name",
        "'other' is not one of",
        "'decorator'",
        "'nothing'",
        "model.vocab",
        "model.eos",
        "tokenizer: is not a list",
        "data[0]: 'file'",
        "data[0]: 'bytes'",
        "context: [64]",
        "skip_passes[0]: is not a text",
        "tensors: 'c'",
        "tensors: 'd'",
        "in_place[0]: 'file'",
        "in_place[0].modified_ns: 'today'",
    ):
        assert part in text
    assert len(caught.value.diagnostics) == 15


def test_a_changed_graph_is_found_when_it_is_wanted(built: Path) -> None:
    changed = built.parent / "model.prefill.onnx"
    changed.write_bytes(changed.read_bytes() + b"\0")
    found = manifest.load(built)
    assert found.graph_path("decode").is_file()
    with pytest.raises(CheckFailed) as caught:
        found.graph_path("prefill")
    assert codes(caught.value) == ["changed-file"]
    changed.unlink()
    with pytest.raises(CheckFailed) as caught:
        found.graph_path("prefill")
    assert codes(caught.value) == ["missing-file"]


def test_the_weights_file_must_be_there_in_its_size(built: Path) -> None:
    found = manifest.load(built)
    data = built.parent / "model.onnx.data"
    data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(WeightsError) as caught:
        found.graph_path("decode")
    assert codes(caught.value) == ["changed-file"]
    data.unlink()
    with pytest.raises(WeightsError) as caught:
        found.graph_path("decode")
    assert codes(caught.value) == ["missing-file"]


def test_a_graph_that_was_not_built(tmp_path: Path) -> None:
    found = manifest.load(TinyLlama().write(tmp_path, ["unified"]))
    with pytest.raises(SpecError, match="built without a decode graph"):
        found.graph_path("decode")


def test_tokenizer_files_by_their_usual_names(tmp_path: Path) -> None:
    files = {"tiny.tokenizer.json": "{}", "tokenizer_config.json": "{}"}
    found = manifest.load(TinyLlama().write(tmp_path, ["unified"], tokenizer=files))
    assert found.tokenizer_file("tokenizer.json") == tmp_path / "tiny.tokenizer.json"
    assert found.tokenizer_file("tokenizer_config.json") == tmp_path / "tokenizer_config.json"
    assert found.tokenizer_file("chat_template.jinja") is None
