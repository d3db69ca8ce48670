"""The committed oracle cases are whole, small and what they were when they were recorded."""

from __future__ import annotations

import filecmp
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tests.oracle_io import COMMITTED, INPUTS, Oracle

pytestmark = pytest.mark.golden

CASES = sorted(folder.name for folder in COMMITTED.iterdir())


def test_the_cases_are_there() -> None:
    assert len(CASES) == 31


@pytest.mark.parametrize("case", CASES)
def test_case_is_whole(case: str, oracle: Callable[[str], Oracle]) -> None:
    read = oracle(case)
    assert read.meta["case"] == case
    assert read.folder.parent == COMMITTED
    for scenario in read.scenarios:
        assert read.expected(scenario), f"{scenario} expects nothing"
    if read.meta["family"] != "ops":
        assert 1e-6 < read.allowed() < 5e-4, "too loose for the smallest planted mistake, or too tight to compute"
    for name, array in read.arrays.items():
        if name.split("/")[1] not in INPUTS:
            assert np.isfinite(array).all(), name


@pytest.mark.parametrize("case", CASES)
def test_case_is_small(case: str) -> None:
    large = [path.name for path in (COMMITTED / case).iterdir() if path.stat().st_size >= 1 << 20]
    assert not large


def test_committed_cases_are_the_shared_ones(shared: Path) -> None:
    for case in CASES:
        twin = shared / "oracles" / "public" / case
        names = sorted(path.name for path in twin.iterdir())
        assert names == sorted(path.name for path in (COMMITTED / case).iterdir())
        _, different, unreadable = filecmp.cmpfiles(twin, COMMITTED / case, names, shallow=False)
        assert not different + unreadable, case


def test_padding_is_not_compared_and_all_else_is(oracle: Callable[[str], Oracle]) -> None:
    read = oracle("llama_gqa4_bias")
    mask = read.arrays["b2/attention_mask"].astype(bool)
    logits = read.arrays["b2/logits"]
    padded = np.where(mask[..., None], logits, 1e9)
    assert read.mismatches("b2", {"logits": padded}) == []
    assert read.error("b2", "logits", padded) == 0.0
    wrong = logits.copy()
    row, column = np.argwhere(mask)[-1]
    wrong[row, column, 0] += 1e-3
    assert len(read.mismatches("b2", {"logits": wrong})) == 1
    wrong[row, column, 0] = np.nan
    assert len(read.mismatches("b2", {"logits": wrong})) == 1
    assert read.error("b2", "logits", wrong) == float("inf")
    assert len(read.mismatches("b2", {"logits": logits[:1]})) == 1


def test_cache_columns_of_padding_are_not_compared(oracle: Callable[[str], Oracle]) -> None:
    read = oracle("llama_gqa4_bias")
    present = read.present("b2", layer=0, steps=2)
    assert present is not None
    mask = read.step_inputs("b2", 1)["attention_mask"].astype(bool)
    assert present[0].shape[2] == mask.shape[1]
    spoilt = np.where(mask[:, None, :, None], present[0], np.inf)
    assert read.error("b2", "cache_key.0", spoilt, present[0]) == 0.0
    assert read.error("b2", "cache_key.0", spoilt + 1, present[0]) == pytest.approx(1)
