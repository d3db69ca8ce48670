from __future__ import annotations

import math
from pathlib import Path

import pytest

from flowc.build.compiled import Request
from flowc.compile import build, compile_file
from flowc.ir.weights.expressions import Generated
from tests.oracle_io import ROOT


@pytest.mark.parametrize("target", ["ort-cpu", "portable"])
def test_packed_rows_are_stored_once(target: str, tmp_path: Path) -> None:
    """Whatever the graphs read of a packed tensor, the data file holds its bytes once."""
    compiled = compile_file(ROOT / "examples" / "phi3.yaml", Request(target=target))
    build(compiled, tmp_path / "model.onnx", verify="off")
    read = [w for g in compiled.graphs.values() for w in g.weights()]
    packed = {t.name for w in read for t in w.tensors() if t.name.endswith(("qkv_proj.weight", "gate_up_proj.weight"))}
    assert len(packed) == 4
    stored = {key: w for w in read if (key := w.key)}
    assert compiled.checkpoint is not None
    tensors = sum(math.prod(shape) * 4 for shape, _ in compiled.usage.tensors.values())
    tables = sum(w.nbytes for w in stored.values() if isinstance(w, Generated))
    padding = 4096 * len(stored)
    assert (tmp_path / "model.onnx.data").stat().st_size <= tensors + tables + padding
