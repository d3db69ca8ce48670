"""Builds as users make them (one row of logits, and assumed padding) against HuggingFace's numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowc.build.facts import metadata
from flowc.importers.family import families
from tests.oracle_io import RTOL, Oracle, case_folders
from tests.parity.harness import Array, Model, make, past_of


def decoders() -> list[str]:
    """Decoder cases that flowc imports."""
    known = families()
    found = {name: Oracle(folder).meta for name, folder in case_folders().items()}
    return [n for n, m in found.items() if m["kind"] == "decoder" and m["family"] in known]


def near(got: Array, want: Array, oracle: Oracle) -> None:
    np.testing.assert_allclose(got, want, atol=oracle.allowed(), rtol=RTOL)


def pair(
    model: Model, oracle: Oracle, rows: list[tuple[Array, Array]], first: Array, later: Array, *, compact: bool
) -> None:
    """Prompts padded on the right, then one token at a time: each row's logits are HuggingFace's."""
    longest = max(len(ids) for ids, _ in rows)
    ids = np.stack([np.pad(i, (0, longest - len(i))) for i, _ in rows])
    mask = np.stack([np.arange(longest) < len(i) for i, _ in rows]).astype(np.int64)
    results = model.run("prefill", {"input_ids": ids, "attention_mask": mask})
    near(results["logits"][:, 0], first, oracle)
    for step in range(later.shape[1]):
        mask = np.concatenate([mask, np.ones_like(mask[:, :1])], axis=1)
        if compact:
            mask = -np.sort(-mask, axis=1)
        new = np.stack([steps[step : step + 1] for _, steps in rows])
        results = model.run("decode", {"input_ids": new, "attention_mask": mask, **past_of(results)})
        near(results["logits"][:, 0], later[:, step], oracle)


@pytest.mark.golden
@pytest.mark.parametrize("assume", ["none", "right-padding", "no-padding"])
@pytest.mark.parametrize("case", decoders())
def test_the_last_token(tmp_path: Path, case: str, assume: Any) -> None:
    oracle = Oracle(case_folders()[case])
    model = make(oracle.folder, "ort-cpu", tmp_path, logits="last", graphs=("prefill", "decode"), assume=assume)
    compact = "right-padding" in {
        metadata(model.compiled, p)["flowc.assume"] for p in model.compiled.graphs if p == "decode"
    }
    for scenario in oracle.scenarios:
        arrays, want = oracle.inputs(scenario), oracle.expected(scenario)
        if len(arrays["input_ids"]) > 1 and assume == "no-padding":
            continue
        kept = arrays["attention_mask"].astype(bool)
        steps = oracle.all(scenario)["step_input_ids"]
        rows = [(ids[k], s) for ids, k, s in zip(arrays["input_ids"], kept, steps, strict=True)]
        last = np.stack([logits[k][-1] for logits, k in zip(want["logits"], kept, strict=True)])
        pair(model, oracle, rows, last, want["step_logits"], compact=compact)
