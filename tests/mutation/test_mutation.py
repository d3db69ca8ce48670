from __future__ import annotations

from pathlib import Path

import pytest

from tests.mutation.damage import FILE_FAULTS, FileFault
from tests.mutation.faults import FAULTS, Fault
from tests.mutation.planting import compiled_example, damaged, judge, planted

SAMPLE = frozenset(
    {
        "padding mask ignored in one layer", "window one token longer", "erf gelu for tanh gelu", "rope of q skipped",
        "mean over the padding too", "padding leaks into a recurrent state", "caches of two layers exchanged",
    }
)  # fmt: skip
"""Faults of the short run; all of them are planted under `make check-full`."""


def _marked() -> list[object]:
    return [pytest.param(f, id=f.name, marks=() if f.name in SAMPLE else pytest.mark.slow) for f in FAULTS]


def test_the_suite_is_large_enough() -> None:
    assert len({f.name for f in FAULTS}) == len(FAULTS) >= 40
    assert len({f.name for f in FILE_FAULTS}) == len(FILE_FAULTS) >= 20
    assert {f.name for f in FAULTS} >= SAMPLE


def test_a_sound_build_is_not_blamed(tmp_path: Path) -> None:
    from flowc.compile import build

    build(compiled_example("tiny-llama"), tmp_path / "model.onnx", verify="off")
    assert judge(tmp_path).checks == ()


@pytest.mark.parametrize("fault", _marked())
def test_a_compiler_fault_is_caught(fault: Fault, tmp_path: Path) -> None:
    verdict = planted(fault, tmp_path)
    assert verdict.caught
    assert verdict.stage, "no stage was named"


@pytest.mark.parametrize("fault", FILE_FAULTS, ids=lambda fault: fault.name)
def test_a_file_fault_is_caught(fault: FileFault, tmp_path: Path) -> None:
    assert damaged(fault.damage, tmp_path).caught
