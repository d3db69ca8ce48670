"""A target is one file: here one with a row of its own in front of the standard ones, built, verified and explained."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowc.build.compiled import Request
from flowc.compile import build, compile_file
from flowc.ir.core.norm import Norm
from flowc.ir.kernel.skip_norm import SkipRmsNormalization
from flowc.ir.phases import DECODE
from flowc.targets import registry
from flowc.targets.standard import STANDARD
from flowc.targets.target import Row, Target
from flowc.verify import quick

EXAMPLE = Path(__file__).parents[2] / "examples" / "tiny-llama.yaml"
MADE_UP = Target(
    "made-up", 24, 10, "1.24.0", True, "a runtime with one kernel of its own",
    (Row(Norm, SkipRmsNormalization, "made up", phases=(DECODE,)), *STANDARD),
)  # fmt: skip


def test_a_target_is_its_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry.TARGETS, "made-up", MADE_UP)
    compiled = compile_file(EXAMPLE, Request(target="made-up"))
    counts = {p: sum(isinstance(n.op, SkipRmsNormalization) for n in g.nodes) for p, g in compiled.graphs.items()}
    assert counts == {"unified": 0, "prefill": 0, "decode": 4}
    built = build(compiled, tmp_path / "model.onnx", check=quick.check)
    assert all(check["passed"] for check in built.checks)
    assert built.manifest["min_onnxruntime"] == "1.24.0"
