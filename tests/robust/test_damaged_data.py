"""A model whose weights were damaged is not computed with, and an undamaged one is read through once."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from flowc.build import remembered
from flowc.build.remembered import remembered_sha256, sha256_of
from flowc.cli import main
from tests.robust.builds import larger
from tests.robust.calling import flowc


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    spec = larger(folder, 1, 2_000)
    assert main(["build", str(spec), "-o", str(folder / "model.onnx"), "--verify", "off"]) == 0
    assert (folder / "model.onnx.data").stat().st_size > remembered.SMALL
    np.save(folder / "ids.npy", np.array([[1, 2, 3]]))
    return folder


@pytest.fixture
def model(built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FLOWC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remembered, "known", {})
    shutil.copytree(built, tmp_path / "m")
    return tmp_path / "m" / "model.onnx"


def damage(model: Path, at: int = 1 << 20) -> None:
    with model.with_name("model.onnx.data").open("r+b") as stream:
        stream.seek(at)
        stream.write(bytes(59_000))


@pytest.mark.parametrize("graph", ["pair", "unified"])
def test_damaged_weights(model: Path, graph: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["run", str(model), "--ids", "1,2,3", "-n", "4", "--graph", graph]
    assert main(command) == 0
    damage(model)
    capsys.readouterr()
    assert main(command) == 3
    told = capsys.readouterr()
    assert "error[changed-file]: the weights file " in told.err
    assert not told.out


def test_damaged_weights_of_arrays_and_goldens(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    damage(model)
    assert main(["run", str(model), "--input", f"input_ids={model.with_name('ids.npy')}"]) == 3
    case = model.with_name("case.yaml")
    case.write_text(f"golden: 1\nname: x\nspec: {model.with_name('model-1.yaml')}\nprompts: [{{ids: [1], steps: 1}}]\n")
    capsys.readouterr()
    assert main(["golden", "record", str(case)]) == 0
    assert main(["golden", "check", str(case), "--model", str(model)]) == 3
    assert "error[changed-file]" in capsys.readouterr().err


def test_damage_that_hides_its_time(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = model.with_name("model.onnx.data")
    command = ["run", str(model), "--ids", "1,2,3", "-n", "4"]
    assert main(command) == 0
    status = data.stat()
    damage(model)
    os.utime(data, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert main(command) == 3


def test_a_file_is_read_once(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = model.with_name("model.onnx.data")
    read: list[Path] = []

    def counted(path: Path) -> str:
        read.append(path)
        return sha256_of(path)

    monkeypatch.setattr(remembered, "sha256_of", counted)
    monkeypatch.setattr(remembered, "SETTLED", 0)
    want = sha256_of(data)
    for _ in range(3):
        assert remembered_sha256(data) == want
        remembered.known.clear()
    assert read == [data]
    (record,) = (tmp_path / "cache" / "hashes").iterdir()
    for spoiled in ("", "[]", "{", json.dumps({"status": 1}), json.dumps({"status": [], "sha256": 3})):
        remembered.known.clear()
        record.write_text(spoiled)
        assert remembered_sha256(data) == want
    assert len(read) == 6
    damage(model)
    assert remembered_sha256(data) == sha256_of(data) != want


def test_a_build_remembers_what_it_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWC_CACHE", str(tmp_path / "cache"))
    spec = larger(tmp_path, 1, 2_000)
    assert main(["build", str(spec), "-o", str(tmp_path / "model.onnx"), "--verify", "off"]) == 0
    monkeypatch.setattr(remembered, "known", {})
    monkeypatch.setattr(remembered, "sha256_of", None)  # reading would raise TypeError
    manifest = json.loads((tmp_path / "model.flowc.json").read_text())
    assert remembered_sha256(tmp_path / "model.onnx.data") == manifest["data"][0]["sha256"]


@pytest.mark.parametrize("home", ["/proc/nowhere", "/dev/null"])
def test_no_home_is_no_trouble(model: Path, tmp_path: Path, home: str) -> None:
    done = flowc("run", model, "--ids", "1,2", "-n", "2", cwd=tmp_path, HOME=home, FLOWC_CACHE=None)
    assert done.code == 0, done.err
    damage(model)
    flowc("run", model, "--ids", "1,2", "-n", "2", cwd=tmp_path, HOME=home, FLOWC_CACHE=None).refused(3)
