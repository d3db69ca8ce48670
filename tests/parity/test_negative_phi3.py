from __future__ import annotations

import math
from pathlib import Path

import pytest

from flowc.build.compiled import Request
from flowc.compile import build, compile_file
from flowc.ir.weights.expressions import Generated
from tests.oracle_io import ROOT
from tests.parity.negative import assert_seen

MISTAKES = [
    ("phi3_partial_long", r"window: \d+", "window: 8", "a window one too short"),
    ("phi3_partial_long", r"attention_factor: [\d.]+", "attention_factor: 1.0", "longrope's factor dropped"),
    ("phi3_partial_long", "original_length: 12", "original_length: 90", "the short factors for the long ones"),
    ("phi3_partial_short", r"original_length: \d+", "original_length: 2", "the long factors for the short ones"),
    ("phi3_full_rotary", "activation: silu", "activation: gelu", "another activation"),
    ("phi3_full_rotary", r"theta: [\d.]+", "theta: 20000.0", "another theta"),
]


@pytest.mark.golden
@pytest.mark.parametrize(("case", "pattern", "replacement", "what"), MISTAKES, ids=[m[3] for m in MISTAKES])
def test_parity_sees(case: str, pattern: str, replacement: str, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert_seen(case, pattern, replacement, monkeypatch, "ort-cpu")


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
