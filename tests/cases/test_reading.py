from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.cases.reading import MARK, compare, expected, given
from tests.oracle_io import ROOT

CASE = "# One idea.\nspec: |\n  flowc: 1\n"


def test_what_came_out_is_yaml_and_says_the_same() -> None:
    found = {"exit": 2, "stderr": "a: 'b'\n\n   --> x\n  |\n", "fired": ["a"], "missed": {"b": "c"}, "changes": ""}
    assert yaml.safe_load(expected(found)) == found


def test_another_text_fails_and_an_update_writes_it(tmp_path: Path) -> None:
    path = tmp_path / "case.yaml"
    path.write_text(CASE)
    with pytest.raises(AssertionError, match="has no expected text"):
        compare(path, {"exit": 2}, update=False)
    compare(path, {"exit": 2}, update=True)
    assert path.read_text() == f"{CASE}{MARK}exit: 2\n"
    compare(path, {"exit": 2}, update=False)
    with pytest.raises(AssertionError, match="pytest --update"):
        compare(path, {"exit": 3}, update=False)
    compare(path, {"exit": 3}, update=True)
    assert path.read_text() == f"{CASE}{MARK}exit: 3\n"
    assert given(path) == {"spec": "flowc: 1\n"}


def test_a_case_without_an_idea_is_refused(tmp_path: Path) -> None:
    (tmp_path / "case.yaml").write_text("spec: x\n")
    with pytest.raises(AssertionError, match="says its idea"):
        given(tmp_path / "case.yaml")


@pytest.mark.parametrize(("ci", "code"), [("true", 4), ("", 0)])
def test_a_robot_does_not_update(ci: str, code: int) -> None:
    command = [sys.executable, "-m", "pytest", "--update", "-q", "-p", "no:cacheprovider", __file__, "-k", "idea"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"CI": ci}, capture_output=True, text=True)
    assert done.returncode == code, done.stdout + done.stderr
    assert ("--update is not for CI" in done.stderr) is bool(ci)
