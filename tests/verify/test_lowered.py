"""What no input shows: verify compares the files with what their spec is lowered to, and recomputes its tables."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from flowc.build import manifest as manifests
from flowc.build.compiled import Request
from flowc.cli import main
from flowc.compile import build, compile_file
from flowc.verify.checks import Checks
from flowc.verify.full import verify
from flowc.verify.rebuild import recompile
from tests.mutation.damage import edited, manifest_edited, offset_of, record
from tests.oracle_io import ROOT
from tests.realistic.models import Model


@pytest.fixture
def built(tmp_path: Path) -> Path:
    """A tiny Llama whose weights came from a file that is gone."""
    model = Model(ROOT / "examples" / "tiny-llama.yaml")
    compiled = model.compiled(tmp_path, 5, Request())
    spec = (ROOT / "examples" / "tiny-llama.yaml").read_text(encoding="utf-8")
    (tmp_path / "model.yaml").write_text(spec.replace("{random: 0}", "{file: model.safetensors}"), encoding="utf-8")
    compiled = compile_file(tmp_path / "model.yaml", Request())
    build(compiled, tmp_path / "out" / "model.onnx", verify="off")
    (tmp_path / "model.safetensors").unlink()
    return tmp_path / "out"


def checked(folder: Path) -> Checks:
    manifest = manifests.load(folder)
    return verify(manifest, recompile(manifest))


def failed(checks: Checks) -> set[tuple[str, str]]:
    return {(c.name, c.graph) for c in checks.failures}


def test_a_row_of_a_table_of_angles_that_no_prompt_reaches(built: Path) -> None:
    name = next(
        t.name
        for t in onnx.load(str(built / "model.onnx"), load_external_data=False).graph.initializer
        if t.name.startswith("rope_cos")
    )
    content = bytearray((built / "model.onnx.data").read_bytes())
    at = offset_of(built / "model.onnx", name) + 500 * 8 * 4
    row = np.frombuffer(content[at : at + 32], np.float32) * np.float32(1 + 1e-6)
    content[at : at + 32] = row.tobytes()
    (built / "model.onnx.data").write_bytes(content)
    record(built)
    checks = checked(built)
    assert ("weights", "") in failed(checks)
    assert f"the weight '{name}' of stage 'repeat.layers.0.llama_decoder'" in checks.render()


def test_an_epsilon_that_is_off_by_little(built: Path) -> None:
    def edit(model: Any) -> None:
        node = [n for n in model.graph.node if n.op_type == "RMSNormalization"][-1]
        next(a for a in node.attribute if a.name == "epsilon").f = 2e-5

    edited("model.decode.onnx", edit)(built)
    checks = checked(built)
    assert ("lowered", "decode") in failed(checks)
    shown = checks.render()
    assert "RMSNormalization 'rms_norm.norm': its epsilon is 1.99999995e-05, not 9.99999975e-06" in shown
    assert "of stage 'rms_norm' (model.yaml:" in shown


def test_a_branch_that_few_batches_take(built: Path) -> None:
    def node(op: str, inputs: list[str], output: str, **ints: int) -> onnx.NodeProto:
        made: Any = onnx.NodeProto(op_type=op, input=inputs, output=[output])
        for key, value in ints.items():
            made.attribute.append(onnx.AttributeProto(name=key, type=onnx.AttributeProto.INT, i=value))
        return made

    def edit(model: Any) -> None:
        last = next(n for n in model.graph.node if "logits" in n.output)
        last.output[list(last.output).index("logits")] = "raw"
        for name, value in (("eight", np.array([8])), ("five", np.array(5, np.float32))):
            model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
        model.graph.node.extend([
            node("Shape", ["raw"], "batch", start=0, end=1), node("Greater", ["batch", "eight"], "many"),
            node("Cast", ["many"], "one", to=onnx.TensorProto.FLOAT), node("Mul", ["one", "five"], "more"),
            node("Add", ["raw", "more"], "logits"),
        ])  # fmt: skip

    edited("model.prefill.onnx", edit)(built)
    assert failed(checked(built)) == {("lowered", "prefill")}


def test_a_build_of_another_version_is_not_compared(built: Path) -> None:
    def older(manifest: dict[str, Any]) -> None:
        manifest["flowc"] = "0.0.1"

    manifest_edited(older)(built)
    checks = checked(built)
    assert not checks.failures
    assert {c.graph for c in checks.done if c.name == "skipped" and "0.0.1" in c.detail} == {
        "unified",
        "prefill",
        "decode",
    }


def _without_decode(manifest: dict[str, Any]) -> None:
    del manifest["graphs"]["decode"]


def _other_shape(manifest: dict[str, Any]) -> None:
    manifest["tensors"]["model.norm.weight"] = "65"


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (_without_decode, "model.decode.onnx is there, but model.flowc.json names no such graph"),
        (_other_shape, "65"),
    ],
)
def test_a_manifest_that_lacks_a_graph_or_has_a_wrong_shape(
    edit: Callable[[dict[str, Any]], None], words: str, built: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest_edited(edit)(built)
    assert main(["verify", str(built)]) != 0
    assert words in capsys.readouterr().err


def test_one_root_cause_first_and_last(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def edit(model: Any) -> None:
        node = next(n for n in model.graph.node if n.op_type == "RMSNormalization")
        next(a for a in node.attribute if a.name == "epsilon").f = 0.5

    for name in ("model.onnx", "model.prefill.onnx", "model.decode.onnx"):
        edited(name, edit)(built)
    assert main(["verify", str(built)]) == 1
    shown = capsys.readouterr()
    assert shown.out.startswith("FAIL lowered   unified  model.onnx is not what its spec is lowered to")
    assert shown.err.count("error[") == 1
    assert "other checks failed, which may follow from it: lowered (prefill, decode), numbers" in shown.err
    assert len((shown.out + shown.err).splitlines()) < 40
    assert main(["verify", str(built), "--json"]) == 1
    assert len([c for c in json.loads(capsys.readouterr().out)["checks"] if not c["passed"]]) > 20
