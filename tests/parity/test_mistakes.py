"""Parity with HuggingFace sees every planted mistake: in the spec, and in the compiler."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import pytest

from flowc.errors import SpecError
from tests.parity.mistakes.code import CODE_MISTAKES, CodeMistake
from tests.parity.planting import in_spec, is_of_the_first_run, leftovers_allowed, off, unchanged

FAMILIES = sorted(path.stem for path in Path(__file__).with_name("mistakes").glob("[a-z]*.py") if path.stem != "code")
TABLES = {family: import_module(f"tests.parity.mistakes.{family}") for family in FAMILIES}
IN_SPECS = [
    pytest.param(case, pattern, replacement, target, id=f"{case}-{what}-{target}")
    for table in TABLES.values()
    for case, pattern, replacement, what in table.MISTAKES
    for target in table.TARGETS
]
IN_CODE = [pytest.param(m, case, id=f"{m.what}-{case}") for m in CODE_MISTAKES for case in m.cases]


def told_before_any_number(refused: SpecError) -> None:
    """What nobody uses any more after a mistake is refused."""
    assert {d.code for d in refused.diagnostics} == {"unused-stage"}


def test_every_family_has_its_mistakes() -> None:
    assert len(FAMILIES) >= 8
    for family, table in TABLES.items():
        told = [(case, what) for case, _, _, what in table.MISTAKES]
        assert len(set(told)) == len(told) >= 5, family


@pytest.mark.golden
@pytest.mark.parametrize(("case", "pattern", "replacement", "target"), IN_SPECS)
def test_parity_sees(case: str, pattern: str, replacement: str, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        wrong = off(case, in_spec(pattern, replacement), monkeypatch, target)
    except SpecError as refused:
        told_before_any_number(refused)
        return
    assert any(map(is_of_the_first_run, wrong)), wrong


@pytest.mark.golden
@pytest.mark.parametrize(("mistake", "case"), IN_CODE)
def test_parity_sees_a_mistake_in_the_code(mistake: CodeMistake, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    mistake.plant(monkeypatch)
    plant = leftovers_allowed if mistake.leaves_weights else unchanged
    try:
        wrong = off(case, plant, monkeypatch, mistake.target)
    except SpecError as refused:
        told_before_any_number(refused)
        return
    assert any(map(is_of_the_first_run, wrong)), wrong
    assert set(mistake.seen) <= set(wrong)
