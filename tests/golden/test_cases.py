"""The committed cases pass, in another state of the machine too, and fail on planted regressions."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast
from xml.etree import ElementTree

import pytest

from flowc.cli import main
from flowc.ir.core.attention import AttentionMask
from flowc.ir.core.elementwise import Binary, Unary
from flowc.ir.core.positions import Positions
from flowc.ir.core.rope import Rope
from flowc.ir.graph import Node
from flowc.ir.kernel.attention import OnnxAttention
from flowc.ir.kernel.norms import RmsNormalization
from flowc.ir.op import Op
from flowc.ir.visibility import EVERYTHING
from flowc.lowering import emitter
from flowc.lowering.lower import EMITTER_MODULES
from tests.oracle_io import ROOT

REGISTERING = EMITTER_MODULES  # emitter.EMITTERS is filled when these are imported
CASES = sorted((ROOT / "golden/cases").glob("*.yaml"))
pytestmark = pytest.mark.golden


def test_every_family_has_a_case() -> None:
    names = {path.stem for path in CASES}
    assert names >= {
        "llama", "mistral-window", "qwen2", "qwen3", "qwen3-moe", "qwen3-next", "qwen3.5", "gemma", "gemma2", "gemma3",
        "phi3-longrope", "smollm3", "bert", "distilbert", "mpnet", "xlm-roberta", "modernbert", "nomic-bert",
        "nomic-vision", "dinov2", "vit", "flux", "tiny-llama",
    }  # fmt: skip
    assert all(path.with_suffix(".json").stat().st_size < 50_000 for path in CASES if path.stem != "smollm2")


@pytest.mark.parametrize("case", [c for c in CASES if c.stem != "smollm2"], ids=lambda path: path.stem)
@pytest.mark.parametrize("threads", ["1", "2"])
def test_replays(case: Path, threads: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["golden", "check", str(case), "--threads", threads, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["cases"][0]["verdict"] in ("MATCH", "DRIFT")


def attribute(**changed: Any) -> Callable[[Any, Node], tuple[Any, Node]]:
    return lambda op, node: (replace(op, **changed), node)


def without(operand: int) -> Callable[[Any, Node], tuple[Any, Node]]:
    return lambda op, node: (
        op,
        replace(node, inputs=tuple(None if i == operand else v for i, v in enumerate(node.inputs))),
    )


def scaled(factor: float) -> Callable[[Any, Node], tuple[Any, Node]]:
    return lambda op, node: (replace(op, scale=op.scale * factor), node)


def wider(op: AttentionMask, node: Node) -> tuple[Any, Node]:
    seen = op.visibility
    return (op if seen.left is None else replace(op, visibility=replace(seen, left=seen.left + 1))), node


def swapped(op: Binary, node: Node) -> tuple[Any, Node]:
    return (replace(op, function="add") if op.function == "mul" else op), node


REGRESSIONS: dict[str, tuple[str, type[Op], Callable[[Any, Node], tuple[Any, Node]]]] = {
    "epsilon": ("llama", RmsNormalization, attribute(eps=1e-2)),
    "rope pairs neighbours": ("llama", Rope, attribute(interleaved=True)),
    "rope heads": ("gemma", Rope, attribute(heads=1)),
    "attention scale": ("llama", OnnxAttention, scaled(1.05)),
    "window off by one": ("mistral-window", AttentionMask, wider),
    "no softcap": ("gemma2", OnnxAttention, attribute(softcap=None)),
    "activation": ("bert", Unary, attribute(function="relu")),
    "gate added": ("qwen3", Binary, swapped),
    "no causal mask": ("tiny-llama", AttentionMask, attribute(visibility=EVERYTHING)),
    "positions ignore the past": ("tiny-llama", Positions, without(1)),
}


@pytest.mark.parametrize("name", REGRESSIONS)
def test_a_regression_fails_and_names_the_step(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case, kind, change = REGRESSIONS[name]
    sound = emitter.EMITTERS[kind]
    changed: list[Node] = []

    def emit(e: emitter.Emitter, op: Any, node: Node) -> None:
        new_op, new_node = change(op, node)
        changed.extend([node] if (new_op, new_node) != (op, node) else [])
        sound(e, new_op, new_node)

    monkeypatch.setitem(cast("dict[type[Op], Any]", emitter.EMITTERS), kind, emit)
    code = main(["golden", "check", str(ROOT / f"golden/cases/{case}.yaml"), "--json"])
    report = json.loads(capsys.readouterr().out)
    assert changed
    assert code == 1
    bad = [step for step in report["cases"][0]["steps"] if step["verdict"] == "DIVERGED"]
    assert bad[0]["what"].startswith(("prompt 1 step", "last_hidden_state", "pooler_output"))


def test_a_dropped_bias_fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    sound = emitter.Emitter.operand

    def operand(self: emitter.Emitter, name: str) -> Any:
        return None if name == "bias" else sound(self, name)

    monkeypatch.setattr(emitter.Emitter, "operand", operand)
    assert main(["golden", "check", str(ROOT / "golden/cases/qwen2.yaml")]) == 1
    assert "DIVERGED prompt 1 step 0" in capsys.readouterr().out


@pytest.mark.slow
def test_a_real_model_replays(capsys: pytest.CaptureFixture[str]) -> None:
    cache = Path(os.environ.get("FLOWC_CACHE") or Path.home() / ".cache/flowc")
    weights = cache / "models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    if not weights.is_file():
        pytest.skip("the weights are not there: python examples/fetch.py smollm2")
    assert main(["golden", "check", str(ROOT / "golden/cases/smollm2.yaml"), "--weights", str(weights)]) == 0
    assert capsys.readouterr().out.startswith(("MATCH", "DRIFT", "TIE"))


def test_a_folder_leaves_out_what_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "golden/cases/smollm2.yaml").read_text()
    (tmp_path / "smollm2.yaml").write_text(text)
    assert main(["golden", "check", str(tmp_path)]) == 3
    told = capsys.readouterr()
    assert told.out.startswith("SKIPPED  smollm2: ")
    assert "no case was played" in told.err
    tiny = (ROOT / "golden/cases/tiny-llama.yaml").read_text().replace("../../", f"{ROOT}/")
    (tmp_path / "tiny.yaml").write_text(tiny)
    (tmp_path / "tiny.json").write_text((ROOT / "golden/cases/tiny-llama.json").read_text())
    assert main(["golden", "check", str(tmp_path)]) == 0
    (tmp_path / "smollm2.json").write_text((ROOT / "golden/cases/smollm2.json").read_text())
    assert main(["golden", "check", str(tmp_path / "smollm2.yaml")]) == 3


def test_reports(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    junit, report = tmp_path / "golden.xml", tmp_path / "golden.json"
    case = str(ROOT / "golden/cases/tiny-llama.yaml")
    assert main(["golden", "check", case, "--junit", str(junit), "--report", str(report)]) == 0
    suite = ElementTree.parse(junit).getroot()[0]
    assert (suite.get("tests"), suite.get("failures")) == ("8", "0")
    assert json.loads(report.read_text())["passed"] is True
    assert "tiny-llama" in capsys.readouterr().out


def test_record_is_repeatable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "golden/cases/tiny-llama.yaml").read_text().replace("../../", f"{ROOT}/")
    for name in ("one", "two"):
        (tmp_path / f"{name}.yaml").write_text(text)
        assert main(["golden", "record", str(tmp_path / f"{name}.yaml")]) == 0
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    capsys.readouterr()


def test_a_built_model_can_be_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = str(ROOT / "golden/cases/tiny-llama.yaml")
    spec = (ROOT / "examples/tiny-llama.yaml").read_text()
    (tmp_path / "other.yaml").write_text(spec.replace("random: 0", "random: 1"))
    assert main(["build", str(ROOT / "examples/tiny-llama.yaml"), "-o", str(tmp_path / "good/model.onnx")]) == 0
    assert main(["build", str(tmp_path / "other.yaml"), "-o", str(tmp_path / "bad/model.onnx")]) == 0
    assert main(["golden", "check", case, "--model", str(tmp_path / "good")]) == 0
    assert main(["golden", "check", case, "--model", str(tmp_path / "bad")]) == 1
    assert "DIVERGED prompt 1 step 0" in capsys.readouterr().out


@pytest.mark.parametrize(("change", "words"), [
    (("golden: 1", "golden: 2"), "error[bad-version]"),
    (("prompts:", "promts:"), "did you mean 'prompts'?"),
    (("steps: 8", "steps: 0"), "'steps' must be a whole number from 1 to 4096"),
    (("dtype: float32", "dtype: int4"), "float32 graphs only"),
    (("ids: [1,", "ids: [x,"), "'ids' must be a list of token ids"),
    (("name: tiny-llama", "name: tiny-llama\ncheckpoint: here"), "either a `checkpoint` or a `spec`"),
    (("absolute: 1e-4", "absolute: -1"), "'absolute' must be a number, 0 or more"),
], ids=str)  # fmt: skip
def test_a_wrong_case_is_refused(
    change: tuple[str, str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (ROOT / "golden/cases/tiny-llama.yaml").read_text()
    (tmp_path / "case.yaml").write_text(text.replace(*change))
    assert main(["golden", "record", str(tmp_path / "case.yaml")]) == 2
    assert words in capsys.readouterr().err


def test_a_case_that_cannot_be_recorded_does_not_stop_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (
        (ROOT / "golden/cases/tiny-llama.yaml")
        .read_text()
        .replace("../../", f"{ROOT}/")
        .replace("steps: 8", "steps: 1")
    )
    for name in ("bad", "good"):
        (tmp_path / f"{name}.yaml").write_text(text.replace("examples/tiny-llama", "none") if name == "bad" else text)
    assert main(["golden", "record", str(tmp_path / "bad.yaml"), str(tmp_path / "good.yaml")]) == 2
    assert (tmp_path / "good.json").is_file()
    assert "none.yaml" in capsys.readouterr().err


def test_recordings_of_something_else_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = (ROOT / "golden/cases/tiny-llama.yaml").read_text().replace("../../", f"{ROOT}/")
    recording = json.loads((ROOT / "golden/cases/tiny-llama.json").read_text())
    case = tmp_path / "case.yaml"
    case.write_text(text)
    assert main(["golden", "check", str(case)]) == 2
    assert "flowc golden record" in capsys.readouterr().err
    case.with_suffix(".json").write_text(json.dumps({**recording, "prompts": []}))
    assert main(["golden", "check", str(case)]) == 2
    assert "error[bad-recording]" in capsys.readouterr().err
    case.with_suffix(".json").write_text(json.dumps({**recording, "weights_sha256": ["00"]}))
    assert main(["golden", "check", str(case)]) == 3
    assert "error[other-weights]" in capsys.readouterr().err
