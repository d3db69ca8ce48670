"""What differs counts once, what was not compared is said, and a revision of git is a side like another."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cli.calling import Called, done, flowc, save_file, write_spec
from tests.oracle_io import ROOT

TINY = (ROOT / "examples/tiny-llama.yaml").read_text()
TINIEST = """\
flowc: 1
kind: decoder
model: {hidden: 4, vocab: 8, norm_eps: 1e-5}
weights: {file: w.safetensors}
flow:
  - embed: embed.weight
  - rms_norm: norm.weight
  - lm_head: head.weight
"""
WEIGHTS = {name: np.ones(shape, np.float32) for name, shape in
           (("embed.weight", (8, 4)), ("norm.weight", (4,)), ("head.weight", (8, 4)))}  # fmt: skip


def put(folder: Path, text: str, weights: float | None = None) -> Path:
    folder.mkdir(exist_ok=True)
    if weights is not None:
        save_file({k: v * np.float32(weights) for k, v in WEIGHTS.items()}, folder / "w.safetensors")
    return write_spec(folder, text)


def answer(called: Called) -> Any:
    return json.loads(called.stdout)


def test_weights_that_are_not_there_are_not_compared(tmp_path: Path) -> None:
    a, b = put(tmp_path / "a", TINIEST), put(tmp_path / "b", TINIEST)
    told = flowc("diff", a, b)
    assert told.code == 1
    assert "weights: not compared\n" in told.stdout
    assert f"{a}: there is no file {tmp_path / 'a/w.safetensors'}" in told.stdout
    assert "is open" in told.stderr
    found = answer(flowc("diff", a, b, "--json"))
    assert found["same"] is None
    assert found["differences"] == []
    [gap] = [gap for gap in found["not_compared"] if gap["level"] == "weights"]
    assert gap["leaves_open"]
    assert gap["at"] == "3 tensors"


def test_one_side_without_weights_leaves_it_open(tmp_path: Path) -> None:
    a, b = put(tmp_path / "a", TINIEST, 1.0), put(tmp_path / "b", TINIEST)
    found = flowc("diff", a, b, "--json")
    assert found.code == 1
    [gap] = [gap for gap in answer(found)["not_compared"] if gap["level"] == "weights"]
    assert gap["reason"].startswith(f"{b}: ")


def test_the_same_missing_file_leaves_nothing_open(tmp_path: Path) -> None:
    a = put(tmp_path, TINIEST)
    b = tmp_path / "other.yaml"
    b.write_text(TINIEST)
    told = flowc("diff", a, b)
    assert told.code == 0
    assert "which is not there" in told.stdout


def test_one_deleted_line_and_one_number_are_two_differences(tmp_path: Path) -> None:
    layers = "".join(f"  - llama_decoder: model.layers.{i}\n" for i in range(12))
    repeat = TINY[TINY.index("  - repeat:") : TINY.index("  - rms_norm")]
    a = TINY.replace(repeat, layers).replace("layers: 2", "layers: 12")
    b = a.replace("norm_eps: 1e-5", "norm_eps: 1e-6").replace("  - llama_decoder: model.layers.3\n", "")
    sides = [put(tmp_path / "a", a), put(tmp_path / "b", b)]
    found = [d for d in answer(flowc("diff", *sides, "--json"))["differences"] if d["level"] == "spec"]
    assert found == [
        {"level": "spec", "at": "model.norm_eps", "a": "1e-05", "b": "1e-06"},
        {"level": "spec", "at": "flow[5]", "a": '{"llama_decoder": "model.layers.3"}', "b": "–"},
    ]


def test_a_stage_that_went_does_not_shift_the_others(tmp_path: Path) -> None:
    norms = "".join(f"  - rms_norm: norm.{i}\n" for i in range(6))
    a = TINIEST.replace("  - rms_norm: norm.weight\n", norms).replace("file: w.safetensors", "random: 0")
    sides = [put(tmp_path / "a", a), put(tmp_path / "b", a.replace("  - rms_norm: norm.2\n", ""))]
    found = answer(flowc("diff", *sides, "--json"))["differences"]
    stages = [d["at"] for d in found if d["level"] == "graphs"]
    assert stages == ["decode: rms_norm_3", "prefill: rms_norm_3", "unified: rms_norm_3"]


def test_builds_are_compared_by_what_they_store(tmp_path: Path) -> None:
    built: list[Path] = []
    for name, value in (("a", 1.0), ("b", 1.0), ("c", 2.0)):
        spec = put(tmp_path / name, TINIEST, value)
        done("build", spec, "-o", tmp_path / name / "out/model.onnx", "--verify", "off")
        (tmp_path / name / "w.safetensors").unlink()
        built.append(tmp_path / name / "out/model.onnx")
    same = flowc("diff", built[0], built[1], "--no-numbers", "--json")
    assert (same.code, answer(same)["same"]) == (0, True)
    other = answer(flowc("diff", built[0], built[2], "--no-numbers", "--json"))
    assert {d["level"] for d in other["differences"]} == {"weights"}
    data = built[0].with_name("model.onnx.data")
    data.write_bytes(b"\0" * data.stat().st_size)
    damaged = flowc("diff", built[0], built[1], "--json")
    assert damaged.code == 1
    gaps = {gap["level"]: gap["reason"] for gap in answer(damaged)["not_compared"]}
    assert all("does not hold what the build wrote" in gaps[level] for level in ("weights", "numbers"))


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a spec in a folder, whose custom stage reads a file beside it, and the folder as cwd."""
    for name in [n for n in os.environ if n.startswith("GIT_")]:
        monkeypatch.delenv(name)
    folder = tmp_path / "repository"
    put(folder, "")
    (folder / "models").mkdir()
    text = (ROOT / "examples/custom.yaml").read_text()
    begin, end = text.index("            onnx: |"), text.index("            weight_inputs:")
    graph = text[begin:end].partition("\n")[2]
    (folder / "models/model.yaml").write_text(f"{text[:begin]}            file: parts/relu.onnx.txt\n{text[end:]}")
    (folder / "models/parts").mkdir()
    (folder / "models/parts/relu.onnx.txt").write_text(graph)
    monkeypatch.chdir(folder)
    for words in (("init", "-q"), ("add", "."), ("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "one")):
        subprocess.run(["git", *words], check=True)
    return folder


def test_a_revision_is_a_side(repository: Path) -> None:
    model = repository / "models/model.yaml"
    assert flowc("diff", "HEAD:models/model.yaml", "models/model.yaml").code == 0
    model.write_text(model.read_text().replace("norm_eps: 1e-5", "norm_eps: 1e-4"))
    part = repository / "models/parts/relu.onnx.txt"
    part.write_text(part.read_text().replace("Mul(square", "Add(square"))
    found = answer(flowc("diff", "HEAD:./models/model.yaml", "models/model.yaml", "--json"))["differences"]
    in_spec = [d for d in found if d["level"] == "spec"]
    assert in_spec[0] == {"level": "spec", "at": "model.norm_eps", "a": "1e-05", "b": "0.0001"}
    assert [d["at"] for d in in_spec[1:]] == ["flow[2].repeat.body[8].custom.onnx"]


def test_a_revision_that_is_not_there_is_told(repository: Path) -> None:
    for name in ("HEAD:none.yaml", "nowhere:models/model.yaml"):
        told = flowc("diff", name, "models/model.yaml")
        assert told.code == 2
        assert f"git has no '{name}'" in told.stderr


def test_what_is_wrong_at_a_revision_has_its_place_there(repository: Path) -> None:
    model = repository / "models/model.yaml"
    sound = model.read_text()
    model.write_text(sound.replace("hidden: 64", "hiddne: 64"))
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qam", "two"], check=True)
    model.write_text(sound)
    told = flowc("diff", "HEAD:models/model.yaml", "models/model.yaml")
    assert told.code == 2
    assert "--> HEAD:models/model.yaml:" in told.stderr
