from __future__ import annotations

from pathlib import Path

import pytest

from flowc.verify import full
from tests.mutation import sample as sampling
from tests.mutation.damage import FILE_FAULTS, FileFault
from tests.mutation.faults import FAULTS, Fault
from tests.mutation.planting import compiled_example, damaged, judge, planted
from tests.mutation.sample import PARTS, sample, sources

TURN = frozenset(fault.name for fault in sample(FAULTS, sources()))


def _marked() -> list[object]:
    return [pytest.param(f, id=f.name, marks=() if f.name in TURN else pytest.mark.slow) for f in FAULTS]


def test_the_suite_is_large_enough() -> None:
    assert len({f.name for f in FAULTS}) == len(FAULTS) >= 40
    assert len({f.name for f in FILE_FAULTS}) == len(FILE_FAULTS) >= 20


def test_every_fault_has_its_turn_in_short_runs_of_equal_length() -> None:
    turns = [sample(FAULTS, number) for number in range(PARTS)]
    assert sorted(f.name for turn in turns for f in turn) == sorted(f.name for f in FAULTS)
    assert {len(turn) for turn in turns} <= {len(FAULTS) // PARTS, len(FAULTS) // PARTS + 1}
    assert min(len({f.example for f in turn}) for turn in turns) >= 3, "a turn shows several families"
    assert sample(FAULTS, PARTS + 3) == turns[3]


def test_the_turn_changes_with_the_sources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "passes").mkdir()
    monkeypatch.setattr(sampling, "ROOT", tmp_path)
    seen: set[int] = set()
    for number in range(60):
        (tmp_path / "passes" / "a.py").write_text(f"x = {number}")
        assert sampling.sources() == sampling.sources()
        seen.add(sampling.sources() % PARTS)
    assert seen == set(range(PARTS)), "sixty commits reach every part"
    before = sampling.sources()
    (tmp_path / "passes" / "a.py").rename(tmp_path / "passes" / "b.py")
    assert sampling.sources() != before


def test_a_sound_build_is_not_blamed(tmp_path: Path) -> None:
    from flowc.compile import build

    build(compiled_example("tiny-llama"), tmp_path / "model.onnx", verify="off")
    assert judge(tmp_path).checks == ()


@pytest.mark.parametrize("fault", _marked())
def test_a_compiler_fault_is_caught(fault: Fault, tmp_path: Path) -> None:
    verdict = planted(fault, tmp_path)
    assert verdict.caught
    assert verdict.stage, "no stage was named"


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_compiler_fault_is_caught_as_in_a_large_model(
    fault: Fault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(full, "LARGE", 0)
    assert planted(fault, tmp_path).caught


@pytest.mark.parametrize("fault", FILE_FAULTS, ids=lambda fault: fault.name)
def test_a_file_fault_is_caught(fault: FileFault, tmp_path: Path) -> None:
    assert damaged(fault.damage, tmp_path).caught
