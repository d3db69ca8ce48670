"""Builds in half precision from files: what a type cannot hold is named, and files of that type are used in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from flowc.build.compiled import Request
from flowc.build.manifest import load
from flowc.compile import build, compile_file
from flowc.errors import WeightsError
from flowc.verify import quick
from flowc.verify.full import verify
from flowc.verify.rebuild import recompile
from flowc.weights import open_checkpoint

EXAMPLE = Path(__file__).parents[2] / "examples" / "tiny-llama.yaml"
NUMPY: dict[str, Any] = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
LARGE = "model.layers.0.mlp.up_proj.weight"


def weights(folder: Path, dtype: str, large: float | None = None, wide: str = "") -> Path:
    """The example's weights in a type, but for those whose name ends on `wide`: they stay float32."""
    compiled = compile_file(EXAMPLE, Request())
    assert compiled.checkpoint is not None
    tensors = {name: compiled.checkpoint.read(name) for name in compiled.checkpoint.tensors()}
    if large is not None:
        tensors[LARGE][3, 5] = large
    kept = {n: a.astype(NUMPY["float32" if wide and n.endswith(wide) else dtype]) for n, a in tensors.items()}
    safetensors.numpy.save_file(kept, folder / "m.safetensors")
    return folder / "m.safetensors"


def test_a_number_that_the_type_cannot_hold_is_named_with_its_remedy(tmp_path: Path) -> None:
    request = Request(weights=weights(tmp_path, "float32", large=1e6), dtype="float16")
    with pytest.raises(WeightsError) as refused:
        build(compile_file(EXAMPLE, request), tmp_path / "out" / "m.onnx")
    text = str(refused.value)
    assert f"tensor '{LARGE}' holds 1e+06 at [3, 5]; float16 holds 65504 (stage repeat.layers.0.llama_decoder)" in text
    assert "tiny-llama.yaml:23:11" in text
    assert "--dtype bfloat16" in text
    assert not (tmp_path / "out").exists() or list((tmp_path / "out").iterdir()) == []


def test_bfloat16_holds_it(tmp_path: Path) -> None:
    request = Request(weights=weights(tmp_path, "float32", large=1e6), dtype="bfloat16")
    built = build(compile_file(EXAMPLE, request), tmp_path / "out" / "m.onnx", check=quick.check)
    assert all(check["passed"] for check in built.checks)


@pytest.mark.parametrize("on", ["ort-cpu", "portable"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_files_of_the_builds_type_are_used_where_they_lie(tmp_path: Path, dtype: str, on: str) -> None:
    request = Request(weights=weights(tmp_path, dtype), dtype=dtype, target=on, in_place=True)
    built = build(compile_file(EXAMPLE, request), tmp_path / "m.onnx", check=quick.check)
    stored = sum(data["bytes"] for data in built.manifest["data"])
    assert stored < 0.3 * (tmp_path / "m.safetensors").stat().st_size, "rope tables and packed rows alone"
    manifest = load(tmp_path / "m.flowc.json")
    assert verify(manifest, recompile(manifest)).failures == []


@pytest.mark.parametrize("on", ["ort-cpu", "portable"])
@pytest.mark.parametrize("wide", ["norm.weight", "up_proj.weight"])
def test_tensors_of_another_type_in_a_file_that_is_used_in_place_are_cast(tmp_path: Path, wide: str, on: str) -> None:
    given = weights(tmp_path, "float16", wide=wide)
    stored = {name: info.nbytes for name, info in open_checkpoint(given).tensors().items() if info.storage == "f32"}
    assert 0 < len(stored) < 10
    request = Request(weights=given, dtype="float16", target=on, in_place=True)
    built = build(compile_file(EXAMPLE, request), tmp_path / "m.onnx", check=quick.check)
    assert all(check["passed"] for check in built.checks)
    manifest = load(tmp_path / "m.flowc.json")
    assert verify(manifest, recompile(manifest)).failures == []


@pytest.mark.parametrize("name", ["dinov2", "roberta"])
def test_a_build_that_stores_half_precision_folds_nothing_into_what_it_stores(tmp_path: Path, name: str) -> None:
    """A product would be rounded anew, and the numbers would be those of other weights."""
    request = Request(dtype="float16", target="ort-cpu")
    compiled = compile_file(EXAMPLE.with_name(f"{name}.yaml"), request)
    stored = [weight.key for weight in compiled.weights if weight.dtype == "float16"]
    assert stored
    assert [key for key in stored if "mul(" in key or "add(" in key] == []
    built = build(compiled, tmp_path / "m.onnx", check=quick.check)
    assert all(check["passed"] for check in built.checks)


@pytest.mark.parametrize(("stored", "dtype"), [("float16", "float32"), ("float32", "float16")])
def test_files_of_another_type_are_not(tmp_path: Path, stored: str, dtype: str) -> None:
    request = Request(weights=weights(tmp_path, stored), dtype=dtype, in_place=True)
    with pytest.raises(WeightsError, match=f"--in-place needs weights in the graph's element type, {dtype}"):
        build(compile_file(EXAMPLE, request), tmp_path / "m.onnx")
