"""Exported test data replays in onnx's own backend test runner."""

from __future__ import annotations

import unittest
from pathlib import Path
from typing import Any, cast
from unittest import mock

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests
from onnx.backend.test.runner import Runner

from flowc.cli import main
from tests.oracle_io import ROOT


class Backend:
    """onnxruntime as a backend of onnx's runner."""

    @classmethod
    def is_compatible(cls, *_: Any, **__: Any) -> bool:
        return True

    @classmethod
    def supports_device(cls, device: str) -> bool:
        return device == "CPU"

    @classmethod
    def prepare(cls, model: onnx.ModelProto, *_: Any, **__: Any) -> Any:
        import onnxruntime as ort

        session: Any = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])

        class Prepared:
            def run(self, inputs: list[Any]) -> tuple[Any, ...]:
                names = [i.name for i in session.get_inputs()]
                return tuple(session.run(None, dict(zip(names, inputs, strict=True))))

        return Prepared()


def replay(folder: Path) -> unittest.TestResult:
    """Run every test of a folder `<kind>/test_*` through onnx's loader and runner."""
    cases = load_model_tests(data_dir=str(folder), kind="exported")
    assert cases
    with mock.patch("onnx.backend.test.runner.load_model_tests", return_value=[]):
        runner: Any = Runner(cast("Any", Backend), __name__)
    for case in cases:
        runner._add_model_test(case, "Exported")
    suite, result = runner.test_suite, unittest.TestResult()
    suite.run(result)
    assert result.testsRun >= len(cases)
    return result


@pytest.mark.parametrize("case", ["tiny-llama", "bert", "vit", "qwen3-next"])
def test_replays_in_the_backend_runner(case: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "exported"
    assert main(["golden", "export", str(ROOT / f"golden/cases/{case}.yaml"), "-o", str(out)]) == 0
    result = replay(tmp_path)
    assert result.wasSuccessful(), result.failures + result.errors
    for folder in map(Path, capsys.readouterr().out.split()):
        assert (folder / "config.txt").read_text().startswith("per_sample_tolerance: ")
        assert not [p for p in folder.rglob("*") if p.is_symlink()]
        graph = onnx.load(str(folder / "model.onnx"), load_external_data=False).graph
        for kind, ports in (("input", graph.input), ("output", graph.output)):
            files = sorted((folder / "test_data_set_0").glob(f"{kind}_*.pb"), key=lambda p: int(p.stem.split("_")[1]))
            tensors = [onnx.load_tensor(str(file)) for file in files]
            assert [t.name for t in tensors] == [p.name for p in ports]


def test_a_wrong_output_fails_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "exported"
    assert main(["golden", "export", str(ROOT / "golden/cases/bert.yaml"), "-o", str(out)]) == 0
    file = out / "test_bert_encode/test_data_set_0/output_0.pb"
    tensor = onnx.load_tensor(str(file))
    moved = numpy_helper.to_array(tensor) + np.float32(0.01)
    file.write_bytes(numpy_helper.from_array(moved, tensor.name).SerializeToString())
    assert not replay(tmp_path).wasSuccessful()
    assert main(["golden", "export", str(ROOT / "golden/cases/bert.yaml"), "-o", str(out)]) == 2
    assert "is already there" in capsys.readouterr().err
