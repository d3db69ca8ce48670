"""The text-encoder examples build and verify, and onnxruntime gives what the interpreter gives for a ragged batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flowc.build.compiled import Request
from flowc.compile import build, compile_file
from flowc.ir.interpret import interpret
from tests.oracle_io import ROOT
from tests.parity.harness import Model

EXAMPLES = ("bert", "roberta", "mpnet", "distilbert", "nomic-bert", "modernbert")


@pytest.mark.parametrize("target", ["ort-cpu", "portable"])
@pytest.mark.parametrize("example", EXAMPLES)
def test_example_computes_what_it_says(example: str, target: str, tmp_path: Path) -> None:
    compiled = compile_file(ROOT / "examples" / f"{example}.yaml", Request(target=target))
    build(compiled, tmp_path / "model.onnx", verify="quick")
    checkpoint = compiled.checkpoint
    assert checkpoint is not None
    rng = np.random.default_rng(3)
    ids = rng.integers(2, 97, (4, 30))
    mask = np.ones_like(ids)
    mask[0, :7] = mask[1, -5:] = mask[2, 11:14] = 0
    feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": rng.integers(0, 2, ids.shape)}
    want = interpret(compiled.expanded["encode"], feeds, checkpoint.read)
    got = Model(compiled, tmp_path).run("encode", feeds)
    assert got.keys() == want.keys()
    for name, reference in want.items():
        value = got[name]
        if reference.ndim == 3:
            value, reference = value[mask != 0], reference[mask != 0]
        assert np.ptp(reference) > 1e-3, f"{name} is the same everywhere"
        np.testing.assert_allclose(value, reference, rtol=1e-5, atol=2e-5, err_msg=name)
