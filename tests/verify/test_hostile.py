"""Manifests, cases and recordings are files that anybody may have written: none of them brings verify down."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flowc.build.compiled import Request
from flowc.cli import main
from flowc.compile import build, compile_file
from flowc.verify import full
from tests.oracle_io import ROOT

VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=20), st.just([]), st.just({}),
    st.lists(st.integers(), max_size=3), st.sampled_from(["../up", "/etc/passwd", "decode", "0x1p+1", "\x1b[31m"]),
)  # fmt: skip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hostile")
    build(compile_file(ROOT / "examples/tiny-llama.yaml", Request(graphs=("decode",))), folder / "model.onnx")
    return folder


def paths(value: Any, at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every place in a JSON value."""
    if at:
        yield at
    entries: Any = ()
    if isinstance(value, dict):
        entries = cast("dict[str, Any]", value).items()
    elif isinstance(value, list):
        entries = enumerate(cast("list[Any]", value))
    for key, inner in entries:
        yield from paths(inner, (*at, key))


def put(value: Any, at: tuple[str | int, ...], new: Any) -> Any:
    """A copy with another value at a place; without it where `new` is Ellipsis."""
    copy = json.loads(json.dumps(value))
    inner = copy
    for key in at[:-1]:
        inner = inner[key]
    if new is ...:
        del inner[at[-1]]
    else:
        inner[at[-1]] = new
    return copy


def test_what_is_spoiled_is_sound(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound = shutil.copytree(model, model.parent / "sound")
    monkeypatch.setattr(full, "_Full", _Nothing)
    assert main(["verify", str(sound), "--json"]) == 0


def spoiled(data: st.DataObject, value: Any) -> str:
    places = list(paths(value))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.sampled_from(places))
        try:
            value = put(value, at, data.draw(VALUES | st.just(...)))
        except (KeyError, IndexError, TypeError):  # a change before took the place away
            continue
    return json.dumps(value)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_manifests(model: Path, monkeypatch: pytest.MonkeyPatch, data: st.DataObject) -> None:
    try_manifest(model, monkeypatch, data)


@pytest.mark.slow
@settings(max_examples=5_000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_many_manifests(model: Path, monkeypatch: pytest.MonkeyPatch, data: st.DataObject) -> None:
    try_manifest(model, monkeypatch, data)


def try_manifest(model: Path, monkeypatch: pytest.MonkeyPatch, data: st.DataObject) -> None:
    monkeypatch.setattr(full, "_Full", _Nothing)  # the numbers are not the point, and would take most of the time
    sound = json.loads((model / "model.flowc.json").read_text())
    folder = model.parent / "spoiled"
    if not folder.exists():
        shutil.copytree(model, folder)
    (folder / "model.flowc.json").write_text(spoiled(data, sound))
    assert main(["verify", str(folder), "--json"]) in (0, 1, 2, 3)


class _Nothing:
    def __init__(self, *_: object) -> None:
        pass

    def run(self) -> None:
        pass


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_recordings(model: Path, tmp_path: Path, data: st.DataObject) -> None:
    case = (
        (ROOT / "golden/cases/tiny-llama.yaml")
        .read_text()
        .replace("../../", f"{ROOT}/")
        .replace("steps: 8", "steps: 2")
    )
    recording = json.loads((ROOT / "golden/cases/tiny-llama.json").read_text())
    recording["prompts"][0]["steps"] = recording["prompts"][0]["steps"][:2]
    (tmp_path / "case.yaml").write_text(case)
    (tmp_path / "case.json").write_text(spoiled(data, recording))
    assert main(["golden", "check", str(tmp_path / "case.yaml"), "--model", str(model), "--json"]) in (0, 1, 2, 3)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_cases(tmp_path: Path, data: st.DataObject) -> None:
    sound = {
        "golden": 1, "name": "x", "spec": "missing.yaml", "dtype": "float32", "target": "ort-cpu",
        "prompts": [{"ids": [1, 2], "steps": 2}, {"text": "a", "steps": 1}],
        "tolerance": {"absolute": 1e-4, "tie": 1e-3},
    }  # fmt: skip
    (tmp_path / "case.json").write_text("{}")
    (tmp_path / "case.yaml").write_text(spoiled(data, sound))
    assert main(["golden", "check", str(tmp_path / "case.yaml"), "--json"]) in (2, 3)


@pytest.mark.parametrize("name", [b"repeat.layers.1.llama_decoder", b"flowc.target", b"model.onnx.data", b"MatMul"])
def test_names_in_a_graph_that_are_no_text(
    name: bytes, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Protobuf hands such a name out as bytes, without a word."""
    shutil.copytree(model, tmp_path / "m")
    manifest = json.loads((tmp_path / "m/model.flowc.json").read_text())
    (record,) = manifest["graphs"].values()
    file = tmp_path / "m" / record["file"]
    content = file.read_bytes()
    assert name in content
    file.write_bytes(content.replace(name, b"\xff" + name[1:], 1))
    record["sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    (tmp_path / "m/model.flowc.json").write_text(json.dumps(manifest))
    assert main(["verify", str(tmp_path / "m")]) == 1
    assert "error[load-failed]" in capsys.readouterr().err
