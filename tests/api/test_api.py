"""`import flowc` as a program uses it: load, check, build, verify, run."""

from __future__ import annotations

import importlib
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import flowc
from tests.cli.calling import BASE, done, write_spec
from tests.oracle_io import ROOT

IN_MEMORY: dict[str, Any] = {
    "flowc": 1,
    "name": "small",
    "model": {"hidden": 8, "heads": 2, "kv_heads": 1, "head_dim": 4, "ffn": 16, "vocab": 32, "norm_eps": 1e-5},
    "weights": {"random": 0},
    "flow": [
        {"embed": "embed.weight"},
        {"rope_tables": {"theta": 10000}},
        {"repeat": {"count": 2, "body": [{"llama_decoder": "layers.{i}"}]}},
        {"rms_norm": "norm.weight"},
        "gather_last_token",
        {"lm_head": {"tied": True}},
    ],
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A build of the spec in memory."""
    built = flowc.build(IN_MEMORY, tmp_path_factory.mktemp("api") / "out" / "small.onnx")
    assert {check["name"] for check in built.checks} >= {"files", "ports", "numbers"}
    assert all(check["passed"] for check in built.checks)
    assert all(file.is_file() and file.stat().st_size == built.sizes[file.name] for file in built.files)
    assert built.graphs["prefill"]["inputs"]["input_ids"] == "int64[batch_size, sequence_length]"
    return built.files[0].parent / "small.onnx"


def test_a_spec_in_memory_is_that_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "small.json").write_text(json.dumps(IN_MEMORY))
    of_file, of_values = flowc.check(tmp_path / "small.json"), flowc.check(IN_MEMORY)
    assert of_file == of_values == flowc.check(flowc.load(IN_MEMORY))
    assert (of_values.name, of_values.kind, of_values.parameters) == ("small", "decoder", 1448)
    assert set(of_values.graphs) == {"unified", "prefill", "decode"}
    assert set(flowc.check(IN_MEMORY, graphs=["decode"], logits="all").graphs) == {"decode"}


def test_check_tells_what_the_command_tells(tmp_path: Path) -> None:
    spec = write_spec(tmp_path)
    assert json.loads(json.dumps(flowc.check(spec).as_json())) == done("check", spec, "--json").json()


def test_what_is_wrong_with_a_spec_in_memory_has_its_place() -> None:
    wrong = {**IN_MEMORY, "flow": [*IN_MEMORY["flow"][:-1], {"lm_heda": {"tied": True}}], "nam": "x"}
    with pytest.raises(flowc.SpecError) as caught:
        flowc.check(wrong)
    codes = {d.code: d for d in caught.value.diagnostics}
    assert set(codes) >= {"unknown-key", "unknown-stage"}
    place = codes["unknown-stage"].span
    assert place is not None
    assert "lm_heda" in place.source.line(place.line)
    assert isinstance(caught.value, flowc.FlowError)
    with pytest.raises(flowc.SpecError, match="what no YAML could"):
        flowc.load({"flowc": object()})


def test_paths_in_a_spec_in_memory_start_in_its_folder(tmp_path: Path) -> None:
    spec = {**IN_MEMORY, "weights": {"file": "w.safetensors"}}
    missing = flowc.check(flowc.load(spec, folder=tmp_path)).weights_missing
    assert missing is not None
    assert str(tmp_path / "w.safetensors") in missing
    with pytest.raises(flowc.WeightsError):
        flowc.build(flowc.load(spec, folder=tmp_path), tmp_path / "out.onnx")


def test_a_model_answers(model: Path) -> None:
    pieces: list[str] = []
    ran = flowc.run(model, ids=[1, 2, 3], max_tokens=6, told=pieces.append)
    assert len(ran.ids) == 6
    assert (
        "".join(pieces) == ",".join(map(str, ran.ids)) == done("run", model, "--ids", "1,2,3", "-n", 6).stdout.strip()
    )
    assert (ran.graph, ran.stopped, ran.text, ran.seed) == ("pair", "max-tokens", None, None)
    drawn = flowc.run(model, ids=[1, 2, 3], max_tokens=6, top_k=5, seed=7)
    assert drawn.seed == 7
    assert list(flowc.run(model, ids=[1, 2, 3], max_tokens=6, top_k=5, seed=7).ids) == list(drawn.ids)


def test_a_model_takes_arrays(model: Path) -> None:
    ids = np.array([[1, 2, 3]], np.int64)
    ran = flowc.run(model, inputs={"input_ids": ids}, graph="pair")
    assert ran.outputs["logits"].shape == (1, 1, 32)
    assert int(ran.outputs["logits"][0, -1].argmax()) == flowc.run(model, ids=[1, 2, 3], max_tokens=1).ids[0]
    with pytest.raises(flowc.SpecError, match="no input pixels"):
        flowc.run(model, inputs={"pixels": ids})
    calls: list[dict[str, Any]] = [{}, {"ids": [1], "prompt": "a"}, {"ids": [1], "inputs": {"input_ids": ids}}]
    for wrong in calls:
        with pytest.raises(flowc.SpecError):
            flowc.run(model, **wrong)


def test_a_model_is_verified(model: Path, tmp_path: Path) -> None:
    found = flowc.verify(model)
    assert found.passed
    assert found.error is None
    assert {check["name"] for check in found.checks} >= {"files", "numbers", "step"}
    told: list[str] = []
    outputs = flowc.run(model, inputs={"input_ids": np.array([[1, 2, 3]], np.int64)}, graph="pair").outputs
    np.savez(tmp_path / "r.npz", input_ids=np.array([[1, 2, 3]], np.int64), logits=outputs["logits"] + 1)
    wrong = flowc.verify(model, against=tmp_path / "r.npz", progress=lambda what, done, total: told.append(what))
    assert not wrong.passed
    assert wrong.error is not None
    assert [d.code for d in wrong.error.diagnostics] == ["wrong-numbers"]
    assert "comparing with the reference" in told
    with pytest.raises(flowc.SpecError, match="does not exist"):
        flowc.verify(tmp_path / "none.onnx")


def test_import_is_as_quick_as_nothing_and_rooms_stay_what_they_are() -> None:
    program = (
        "import sys, flowc; before = set(sys.modules); assert 'build' in dir(flowc); assert not [n for n in before if"
        " n.startswith('flowc.')]; import flowc.build.publish as p; from flowc.verify import quick;"
        " import flowc.verify;"
        " assert p.__name__ == 'flowc.build.publish'; assert callable(flowc.build) and callable(flowc.verify);"
        " assert flowc.build.publish is p; from flowc import build; assert build is flowc.build;"
        " flowc.check; assert not {'onnx', 'onnx_ir', 'onnxruntime'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
    with pytest.raises(AttributeError, match="no attribute 'biuld'"):
        importlib.import_module("flowc").biuld  # noqa: B018


def test_every_function_is_typed_and_on_its_page() -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    from flowc import api

    for name in ("load", "check", "build", "verify", "run"):
        function = getattr(api, name)
        signature = inspect.signature(function)
        assert signature.return_annotation
        shown = page.partition(f"## {name}")[2].partition("\n## ")[0]
        for parameter in signature.parameters.values():
            assert parameter.annotation is not inspect.Parameter.empty
            assert parameter.name == "form" or f"`{parameter.name}`" in shown, f"{name}: {parameter.name}"
    for field in api.Form.__annotations__:
        assert f"`{field}`" in page


def test_the_program_of_the_page_runs(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    assert len(blocks) >= 2
    (tmp_path / "model.yaml").write_text(BASE)
    ran = subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)], cwd=tmp_path, env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout
