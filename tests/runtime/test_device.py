"""Where graphs run: a device that was asked for and is not here is told, never replaced in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowc.build.compiled import Request
from flowc.compile import build, compile_file
from flowc.errors import MissingTool
from flowc.outside import runtime
from flowc.runtime import device as devices
from tests.cli.calling import flowc

EXAMPLE = Path(__file__).parents[2] / "examples" / "tiny-llama.yaml"


@pytest.fixture(scope="module")
def for_cuda(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for dtype in ("float16", "bfloat16"):
        found[dtype] = tmp_path_factory.mktemp(dtype) / "model.onnx"
        build(compile_file(EXAMPLE, Request(target="ort-cuda", dtype=dtype)), found[dtype], verify="off")
    return found


@pytest.fixture(autouse=True)
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime.onnxruntime(), "get_available_providers", lambda: ["CPUExecutionProvider"])


def test_cuda_that_is_not_here_is_refused(for_cuda: dict[str, Path]) -> None:
    called = flowc("run", for_cuda["float16"], "--ids", "1,2,3", "-n", "2", "--provider", "cuda")
    assert called.code == 4
    assert called.stdout == ""
    assert "has no CUDAExecutionProvider" in called.stderr
    assert "onnxruntime-gpu" in called.stderr


@pytest.mark.parametrize("options", [(), ("--provider", "auto")])
def test_a_build_for_cuda_says_that_it_runs_on_the_cpu(for_cuda: dict[str, Path], options: tuple[str, ...]) -> None:
    called = flowc("run", for_cuda["float16"], "--ids", "1,2,3", "-n", "4", *options)
    assert called.code == 0
    assert "note: the graphs run on the CPU" in called.stderr
    asked = flowc("run", for_cuda["float16"], "--ids", "1,2,3", "-n", "4", "--provider", "cpu")
    assert "note:" not in asked.stderr
    assert called.stdout == asked.stdout


@pytest.mark.parametrize("provider", ["cpu", "auto"])
def test_graphs_that_a_cpu_has_no_kernels_for_are_refused(for_cuda: dict[str, Path], provider: str) -> None:
    called = flowc("run", for_cuda["bfloat16"], "--ids", "1,2,3", "--provider", provider)
    assert called.code == 4
    assert "no kernels for these bfloat16 graphs on a CPU" in called.stderr


def test_a_build_for_the_cpu_never_asks_for_cuda(tmp_path: Path) -> None:
    build(compile_file(EXAMPLE, Request()), tmp_path / "model.onnx", verify="off")
    called = flowc("run", tmp_path / "model.onnx", "--ids", "1,2,3", "-n", "2")
    assert called.code == 0
    assert "note:" not in called.stderr


def test_a_device_that_does_not_answer_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    ort: Any = runtime.onnxruntime()
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(ort, "preload_dlls", lambda: None, raising=False)
    with pytest.raises(MissingTool, match="no device answers"):
        devices.device("cuda")
    found, why = devices.device("auto")
    assert found is devices.CPU
    assert "no device answers" in why


def test_a_provider_that_onnxruntime_leaves_out_is_an_error(
    for_cuda: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    ort: Any = runtime.onnxruntime()
    sound = ort.InferenceSession

    def on_the_cpu(graph: str, options: Any, **_: Any) -> Any:
        return sound(graph, options)

    monkeypatch.setattr(ort, "InferenceSession", on_the_cpu)
    with pytest.raises(RuntimeError, match="CUDAExecutionProvider cannot be loaded"):
        runtime.open_graph(str(for_cuda["float16"]), None, ["CUDAExecutionProvider"])


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_zeros_of_every_type(dtype: Any) -> None:
    value = devices.CPU.zeros((2, 3), np.dtype(dtype), overwritten=False)
    np.testing.assert_array_equal(value.numpy(), np.zeros((2, 3), dtype))


def test_zeros_of_the_type_that_numpy_lacks() -> None:
    import ml_dtypes

    value = devices.CPU.zeros((2, 3), np.dtype(ml_dtypes.bfloat16), overwritten=False)
    assert "bfloat16" in value.data_type()
    assert value.shape() == [2, 3]


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_columns_are_joined_on_the_device(dtype: Any) -> None:
    ort: Any = runtime.onnxruntime()
    held, more = np.random.default_rng(0).random((2, 3, 5, 4)).astype(dtype), np.zeros((2, 3, 2, 4), dtype)
    values = [ort.OrtValue.ortvalue_from_numpy(a) for a in (held, more)]
    joined = devices.CPU.lengthened(values[0], 3, values[1])
    np.testing.assert_array_equal(joined.numpy(), np.concatenate([held[:, :, :3], more], axis=2))


def test_columns_of_the_type_that_numpy_lacks_are_joined() -> None:
    import ml_dtypes

    kind = np.dtype(ml_dtypes.bfloat16)
    held, more = (devices.CPU.zeros((2, 3, n, 4), kind, overwritten=False) for n in (5, 2))
    joined = devices.CPU.lengthened(held, 3, more)
    assert joined.shape() == [2, 3, 5, 4]
    assert "bfloat16" in joined.data_type()
