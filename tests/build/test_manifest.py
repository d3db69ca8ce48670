from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft7Validator

from flowc.build import manifest
from flowc.build.compiled import Request
from flowc.build.in_place import record_of
from flowc.build.manifest_keys import UsedInPlace
from flowc.compile import build, compile_file
from flowc.errors import CheckFailed, FlowError, SpecError, WeightsError
from flowc.frontend.state import Options
from flowc.records.schema import record_schema
from flowc.tokenizer.sentences import TextFacts
from tests.oracle_io import ROOT
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


def test_a_graph_that_is_neither_a_phase_nor_of_a_component(built: Path) -> None:
    raw: dict[str, Any] = json.loads(built.read_text())
    raw["graphs"]["encoder"] = raw["graphs"]["unified"]
    built.write_text(json.dumps(raw))
    with pytest.raises(SpecError, match="there is no graph 'encoder'"):
        manifest.load(built)
    raw["components"] = {"encoder": {"graphs": ["encoder"]}, "decoder": {"graphs": ["unified", "prefill", "decode"]}}
    built.write_text(json.dumps(raw))
    assert "encoder" in manifest.load(built).graphs


def test_all_that_is_wrong_with_a_manifest_is_told_at_once(built: Path) -> None:
    raw: dict[str, Any] = json.loads(built.read_text())
    raw["graphs"]["decode"]["file"] = "../model.decode.onnx"
    raw["graphs"]["other graph"] = raw["graphs"]["unified"]
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
        "graphs.decode.file must be a bare file name, not '../model.decode.onnx'",
        "'other graph' cannot be the name of a graph",
        "'decorator'",
        "'nothing'",
        "model.vocab",
        "model.eos",
        "tokenizer must be a list",
        "data[0].file",
        "data[0].bytes must be a whole number, not 'all'",
        "context must be a whole number, not a list",
        "skip_passes[0] must be a text, not 3",
        "the shape of 'c' must be sizes such as 576x1536",
        "the shape of 'd'",
        "in_place[0].file",
        "in_place[0].modified_ns must be a whole number, not 'today'",
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


def test_what_is_wrong_is_told_at_its_line(built: Path) -> None:
    built.write_text(built.read_text().replace('"decoder"', '"decorator"'))
    with pytest.raises(SpecError) as caught:
        manifest.load(built)
    [told] = caught.value.diagnostics
    assert told.span is not None
    assert '"decorator"' in told.span.source.line(told.span.line)
    assert told.span.source.name == str(built)


def test_a_file_that_cannot_be_read_with_places_is_named(built: Path) -> None:
    """A key that is given twice is refused where places are kept."""
    built.write_text(built.read_text().replace('"kind": "decoder"', '"kind": "x", "kind": "decorator"'))
    with pytest.raises(SpecError) as caught:
        manifest.load(built)
    [told] = caught.value.diagnostics
    assert told.span is None
    assert told.message == f"{built}: kind must be one of decoder, encoder, not 'decorator'"


@pytest.mark.parametrize(
    "options",
    [
        Request(),
        Request(dtype="float16", islands=("*norm*",), shard_bytes=40_000, skip_passes=("fold_rope",)),
        Request(options=Options("right-padding", "all", 32, "compact"), graphs=("decode",)),
    ],
    ids=["plain", "half", "compact"],
)
def test_a_build_writes_declared_keys_alone(options: Request, tmp_path: Path) -> None:
    """What no field declares has no place on the page, and nobody checks it when it is read."""
    build(compile_file(ROOT / "examples/tiny-llama.yaml", options), tmp_path / "m.onnx")
    written = json.loads((tmp_path / "m.flowc.json").read_text())
    Draft7Validator(record_schema(manifest.Manifest)).validate(written)


def test_a_text_encoder_and_weights_in_place_write_declared_keys(tmp_path: Path) -> None:
    facts = TextFacts(prompt="query: ", max_tokens=8, prompts={"query": "query: "})
    Draft7Validator(record_schema(TextFacts)).validate(facts.record())
    (tmp_path / "w").write_bytes(bytes(16))
    Draft7Validator(record_schema(UsedInPlace)).validate(dict(vars(record_of(tmp_path / "w"))))


@pytest.mark.parametrize("name", ["x" * 256, "ä" * 128, "x" * 5000])
def test_a_name_longer_than_any_file_has(name: str, built: Path) -> None:
    raw = json.loads(built.read_text())
    raw["graphs"][next(iter(raw["graphs"]))]["file"] = name
    built.write_text(json.dumps(raw))
    with pytest.raises(SpecError, match="bare file name"):
        manifest.load(built)
