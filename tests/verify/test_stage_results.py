"""What every stage gives, and which differs from a trainer's model: `run --dump-stages`, `verify --against`."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import flowc
from flowc.ir.graph import Node
from flowc.ir.interpret import interpret
from flowc.verify.inputs import Array
from tests.cli.calling import BASE, done, write_spec
from tests.cli.calling import flowc as command
from tests.oracle_io import ROOT

NUMBER = re.compile(r"\d+(\.\d+)?(e-?\d+)?(?=[, ])")
IDS = [17, 3, 99, 4, 4, 61, 8, 120]


def shown(mark: str) -> str:
    """A block of the page; numbers are masked, since another processor sums in another order."""
    page = (ROOT / "docs/verify.md").read_text(encoding="utf-8")
    block = page.partition(f"<!-- {mark} -->\n```text\n")[2].partition("```")[0]
    assert block
    return NUMBER.sub("#", block)


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the example, where the trainer has run."""
    folder = tmp_path / "against"
    shutil.copytree(ROOT / "examples/against", folder)
    monkeypatch.chdir(folder)
    subprocess.run([sys.executable, "trainer.py"], check=True)
    return folder


def mended(spec: str) -> str:
    """The spec of the example, as the page mends it."""
    spec = spec.replace("layers: 2,", "layers: 2, windows: [null, 4],")
    return spec.replace("llama_decoder: 'layers.{i}'", "llama_decoder: {prefix: 'layers.{i}', window: '$windows[i]'}")


def test_the_page_from_start_to_end(trainer: Path) -> None:
    done("build", "model.yaml", "-o", "out/model.onnx", "--logits", "all", "--verify", "off")
    ids = ",".join(map(str, IDS))
    told = done("run", "out/model.onnx", "--ids", ids, "--graph", "pair", "--dump-stages", "stages.npz")
    assert told.stderr == "wrote stages.npz: 9 results of stages\n"
    ours, theirs = np.load("stages.npz"), np.load("reference.npz")
    assert set(theirs) <= set(ours)
    for name in ("embed", "repeat.layers.0.llama_decoder"):
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-5)
    wrong = command("verify", "out/model.onnx", "--against", "reference.npz")
    assert wrong.code == 1
    assert NUMBER.sub("#", wrong.stderr) == shown("against")
    assert [c["stage"] for c in command("verify", "out", "--against", "reference.npz", "--json").json()["checks"]
            if c["name"] == "reference"] == ["repeat.layers.1.llama_decoder"]  # fmt: skip
    (trainer / "model.yaml").write_text(mended((trainer / "model.yaml").read_text()))
    done("build", "model.yaml", "-o", "out/model.onnx", "--logits", "all", "--verify", "off")
    assert "ok   reference prefill  reference, 1 rows" in done("verify", "out", "--against", "reference.npz").stdout


@pytest.mark.parametrize(
    ("old", "new", "stage", "line"),
    [
        ("embed: embed.weight", "embed: norm2.weight", "embed", 7),
        ("theta: 10000", "theta: 500", "repeat.layers.0.llama_decoder", 9),
        ("rms_norm: norm.weight", "rms_norm: {weight: norm.weight, eps: 1e-1}", "rms_norm", 10),
    ],
)
def test_a_planted_mistake_is_named_first(trainer: Path, old: str, new: str, stage: str, line: int) -> None:
    weights = dict(np.load("weights.npz"))
    weights["norm2.weight"] = weights["embed.weight"] * np.float32(1.01)
    np.savez("weights.npz", allow_pickle=False, **weights)
    spec = mended((trainer / "model.yaml").read_text())
    assert old in spec
    spec = spec.replace("file: weights.npz", "file: weights.npz, allow_unused: ['*.weight']").replace(old, new)
    (trainer / "model.yaml").write_text(spec)
    done("build", "model.yaml", "-o", "out/model.onnx", "--logits", "all", "--verify", "off")
    told = command("verify", "out", "--against", "reference.npz")
    assert told.code == 1
    assert f"(reference): {stage}: error" in told.stderr
    assert f"stage '{stage}' stands at model.yaml:{line}:" in told.stderr


def test_stages_are_what_the_spec_means(tmp_path: Path) -> None:
    """Every array of a dump beside the interpreter of the graph before any pass."""
    from flowc.build import manifest as manifests
    from flowc.verify.rebuild import recompile

    done("build", write_spec(tmp_path), "-o", tmp_path / "m.onnx", "--verify", "off", "--logits", "all")
    ids = np.array([[1, 2, 3], [4, 5, 6]], np.int64)
    ran = flowc.run(tmp_path / "m.prefill.onnx", inputs={"input_ids": ids}, stages=True)
    compiled = recompile(manifests.load(tmp_path / "m.onnx"))
    assert compiled.checkpoint is not None
    inside: dict[str, Array] = {}

    def watch(node: Node, results: tuple[Array, ...]) -> None:
        parts = node.origin.stage.split(".")
        inside.update({".".join(parts[:end]): results[0] for end in range(1, len(parts) + 1)})

    feeds = {"input_ids": ids, "attention_mask": np.ones((2, 3), np.int64)}
    outputs = interpret(compiled.expanded["prefill"], feeds, compiled.checkpoint.read, watch)
    assert list(ran.inputs) == ["input_ids", "attention_mask"]
    assert set(ran.outputs) == set(outputs)
    assert {"embed", "repeat.layers.0.llama_decoder", "repeat.layers.1.llama_decoder", "lm_head"} <= set(ran.stages)
    for name, array in ran.stages.items():
        np.testing.assert_allclose(array, inside[name], atol=2e-5, err_msg=name)


@pytest.mark.parametrize("graphs", ["unified", "decode", "prefill,decode"])
def test_a_dump_is_a_reference(graphs: str, tmp_path: Path) -> None:
    spec, other = write_spec(tmp_path), tmp_path / "other.yaml"
    other.write_text(BASE.replace("theta: 10000", "theta: 100"))
    for file in (spec, other):
        done("build", file, "-o", tmp_path / file.stem / "m.onnx", "--verify", "off", "--graph", graphs)
    ids = "7" if graphs == "decode" else "7,8,9"
    told = done("run", tmp_path / "model", "--ids", ids, "--dump-stages", tmp_path / "s.npz")
    assert "a build with --logits all has them for every token" in told.stderr or graphs == "decode"
    done("verify", tmp_path / "model", "--against", tmp_path / "s.npz")
    if graphs != "decode":  # one token alone stands at position 0, which no rope turns
        assert command("verify", tmp_path / "other", "--against", tmp_path / "s.npz").code == 1


def test_a_reference_need_not_hold_an_empty_past(tmp_path: Path) -> None:
    done("build", write_spec(tmp_path), "-o", tmp_path / "m.onnx", "--verify", "off", "--graph", "unified")
    ids = np.array([[7, 8, 9]], np.int64)
    logits = flowc.run(tmp_path, inputs={"input_ids": ids}).outputs["logits"]
    np.savez(tmp_path / "r.npz", allow_pickle=False, input_ids=ids, logits=logits)
    done("verify", tmp_path, "--against", tmp_path / "r.npz")


def test_a_dump_lands_on_nothing_else(tmp_path: Path) -> None:
    done("build", write_spec(tmp_path), "-o", tmp_path / "m.onnx", "--verify", "off", "--graph", "unified")
    for file in ("model.yaml", "m.onnx", "m.onnx.data"):
        before = (tmp_path / file).read_bytes()
        assert command("run", tmp_path, "--ids", "1", "--dump-stages", tmp_path / file).code == 2
        assert (tmp_path / file).read_bytes() == before
