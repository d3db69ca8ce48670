"""Outputs land where they were asked to, never on what is read, on a model, or on what another program wrote."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from flowc.cli import cli, main
from flowc.errors import FlowError, SpecError
from flowc.outside.writing import claim
from tests.oracle_io import ROOT
from tests.robust.builds import TINY, digests, weights_of


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    shutil.copyfile(TINY, folder / "tiny.yaml")
    assert main(["build", str(folder / "tiny.yaml"), "-o", str(folder / "model.onnx"), "--verify", "off"]) == 0
    np.save(folder / "ids.npy", np.array([[1, 2, 3]]))
    (folder / "notes.txt").write_text("mine")
    return folder


@pytest.fixture
def model(built: Path, tmp_path: Path) -> Path:
    shutil.copytree(built, tmp_path / "m")
    return tmp_path / "m"


def refused(folder: Path, *arguments: object, says: str = "") -> None:
    """A command that refuses its output, before it works, and changes nothing."""
    before = digests(folder)
    result = CliRunner().invoke(cli, [str(a) for a in arguments])
    assert isinstance(result.exception, FlowError), result.output
    assert result.exception.diagnostics[0].code in ("bad-output", "foreign-file", "bad-value"), result.exception
    assert says in str(result.exception)
    assert digests(folder) == before


def a_link(folder: Path, to: str) -> str:
    (folder / "link").symlink_to(to)
    return "link"


def a_hard_link(folder: Path, to: str) -> str:
    os.link(folder / to, folder / "hard")
    return "hard"


RUN_OUTPUTS: dict[str, Callable[[Path], str]] = {
    "a graph": lambda _: "model.onnx",
    "another graph": lambda _: "model.decode.onnx",
    "the weights": lambda _: "model.onnx.data",
    "the manifest": lambda _: "model.flowc.json",
    "the input": lambda _: "ids.npy",
    "the spec": lambda _: "tiny.yaml",
    "a file of mine": lambda _: "notes.txt",
    "a link": lambda folder: a_link(folder, "model.onnx"),
    "a hard link": lambda folder: a_hard_link(folder, "model.onnx.data"),
    "a folder": lambda folder: (folder / "sub").mkdir() or "sub",
    "below a file": lambda _: "notes.txt/x.npz",
}


@pytest.mark.parametrize("output", RUN_OUTPUTS)
def test_run(model: Path, output: str) -> None:
    name = RUN_OUTPUTS[output](model)
    if output == "a folder":  # click's own check
        assert (
            main(["run", str(model), "--input", f"input_ids={model / 'ids.npy'}", "--output", str(model / name)]) == 2
        )
        return
    refused(model, "run", model, "--input", f"input_ids={model / 'ids.npy'}", "--output", model / name)


def test_run_writes_over_its_own(model: Path) -> None:
    for _ in range(2):
        command = ["run", model, "--input", f"input_ids={model / 'ids.npy'}", "--output", model / "new" / "out.npz"]
        assert main([str(c) for c in command]) == 0
    with np.load(model / "new" / "out.npz") as arrays:
        assert arrays["logits"].shape == (1, 1, 256)
    assert [p.name for p in (model / "new").iterdir()] == ["out.npz"]


@pytest.mark.parametrize(
    "output", ["model.onnx", "model.onnx.data", "model.flowc.json", "notes.txt", "notes.txt/r.html"]
)
def test_report_of_a_build(model: Path, output: str) -> None:
    refused(model, "report", model / "model.onnx", "--verify", "off", "-o", model / output)


@pytest.mark.parametrize("output", ["tiny.yaml", "model.onnx", "notes.txt"])
def test_report_of_a_spec(model: Path, output: str) -> None:
    refused(model, "report", model / "tiny.yaml", "-o", model / output)


def test_report_spares_the_weights_of_a_spec(model: Path) -> None:
    np.savez(model / "w.npz", a=np.zeros(3, np.float32))
    (model / "other.yaml").write_text(TINY.read_text().replace("random: 0", "file: w.npz"))
    refused(model, "report", model / "other.yaml", "-o", model / "w.npz", says="the command reads it")


def test_report_is_whole_or_not_there(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["report", str(model / "tiny.yaml"), "-o", str(model / "r.html")]
    assert main(command) == 0
    before = (model / "r.html").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert main(command) == 4
    assert (model / "r.html").read_bytes() == before
    assert not list(model.glob(".flowc-*"))


def case(folder: Path, name: str = "x", stem: str = "case") -> Path:
    path = folder / f"{stem}.yaml"
    path.write_text(f"golden: 1\nname: {json.dumps(name)}\nspec: tiny.yaml\nprompts: [{{ids: [1, 2], steps: 1}}]\n")
    return path


@pytest.mark.parametrize("name", ["../x", "a/b", "/tmp/x", "..", ".", "a\\b", "a\nb", ".hidden", "x" * 200])
def test_export_takes_no_name_that_is_a_path(model: Path, name: str) -> None:
    refused(model, "golden", "export", case(model, name), "-o", model / "out", says="cannot be the name of a golden")


def test_export_refuses_before_it_builds(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (model / "out" / "test_x_decode").mkdir(parents=True)
    monkeypatch.setattr("flowc.cli.goldens.export.built", None)  # building would raise TypeError
    refused(model, "golden", "export", case(model), "-o", model / "out", says="is already there")
    refused(model, "golden", "export", case(model), "-o", model / "notes.txt")


def test_record_spares_what_is_no_recording(model: Path) -> None:
    path = case(model)
    path.with_suffix(".json").write_text('{"mine": true}')
    refused(model, "golden", "record", path)


def test_record_spares_its_own_case(model: Path) -> None:
    path = model / "case.json"
    path.write_text('{"golden": 1, "name": "x", "spec": "tiny.yaml", "prompts": [{"ids": [1], "steps": 1}]}')
    refused(model, "golden", "record", path, says="the command reads it")


@pytest.mark.parametrize("option", ["--junit", "--report"])
@pytest.mark.parametrize("output", ["case.yaml", "case.json", "tiny.yaml", "model.onnx", "notes.txt"])
def test_reports_of_a_check(model: Path, option: str, output: str) -> None:
    path = case(model)
    path.with_suffix(".json").write_text('{"golden": 1}')
    refused(model, "golden", "check", path, "--model", model / "model.onnx", option, model / output)


def test_dumps_spare_what_is_no_dump(model: Path) -> None:
    command = ["build", model / "tiny.yaml", "-o", model / "out" / "model.onnx", "--dump-dir"]
    (model / "dumps").mkdir()
    (model / "dumps" / "00-expand.unified.flow").write_text("mine")
    refused(model, *command, model / "dumps")
    refused(model, *command, model / "notes.txt")
    (model / "dumps" / "00-expand.unified.flow").unlink()
    for _ in range(2):
        assert main([*map(str, command), str(model / "dumps")]) == 0


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "1_Pooling/config.json"])
def test_import_spares_what_it_reads_whatever_is_forced(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "hf"
    shutil.copytree(ROOT / "golden/oracles/llama_gqa4_bias", folder)
    (folder / "1_Pooling").mkdir()
    for made in (folder / "1_Pooling" / "config.json", folder / "tokenizer.json"):
        made.write_text("{}")
    refused(folder, "import", folder, "-o", folder / name, "--force", says="the command reads it")


def test_a_build_spares_the_tokenizer_of_somebody_else(model: Path) -> None:
    (model / "w").mkdir()
    (model / "w" / "tokenizer.json").write_text('{"ours": 1}')
    (model / "theirs").mkdir()
    (model / "theirs" / "tokenizer.json").write_text('{"theirs": 1}')
    weights_of(TINY, model / "w" / "model.safetensors")
    command = ["build", TINY, "--weights", model / "w", "--verify", "off", "-o"]
    refused(model, *command, model / "theirs" / "model.onnx", says="tokenizer.json")
    for _ in range(2):
        assert main([*map(str, command), str(model / "new" / "model.onnx")]) == 0


@pytest.mark.parametrize("name", [b"caf\xe9.onnx", b"\xff/model.onnx"])
def test_a_name_that_is_no_text_is_refused(tmp_path: Path, name: bytes) -> None:
    with pytest.raises(SpecError, match="is not text here"):
        claim(tmp_path / os.fsdecode(name))
    assert main(["build", str(TINY), "-o", str(tmp_path / os.fsdecode(name)), "--verify", "off"]) == 2
    assert not list(tmp_path.iterdir())
