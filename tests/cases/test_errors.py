"""What a user sees of a wrong spec, whole: errors/*.yaml.

A case may give `command` (default: `check model.yaml`), `files` beside the spec, and `weights`: tensors with their
shapes, written as w.safetensors.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from flowc.codes import CODES
from tests.cases.reading import MARK, cases, compare, given
from tests.cli.calling import flowc, save_file

CASES = cases("errors")


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, update: bool) -> None:
    case = given(path)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.yaml").write_text(case["spec"], encoding="utf-8")
    for name, text in case.get("files", {}).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    if "weights" in case:
        tensors = {name: np.ones(shape, np.float32) for name, shape in case["weights"].items()}
        save_file(tensors, tmp_path / "w.safetensors")
    before = sorted(tmp_path.iterdir())
    words = case.get("command", "check model.yaml").split()
    called = flowc(*words)
    assert called.code in (1, 2, 3, 4), "this is no error"
    assert called.stdout == ""
    assert sorted(tmp_path.iterdir()) == before, "nothing is written"
    told = [d["code"] for d in flowc(*words, "--json").diagnostics()]
    assert told == re.findall(r"(?m)^error\[([a-z-]+)\]", called.stderr), "--json tells the same"
    compare(path, {"exit": called.code, "stderr": called.stderr.replace(str(tmp_path), "FOLDER")}, update=update)


def test_the_cases_show_most_of_what_a_spec_can_do_wrong() -> None:
    shown = set(re.findall(r"error\[([a-z-]+)\]", "".join(path.read_text(encoding="utf-8") for path in CASES)))
    assert shown <= set(CODES)
    assert len(CASES) >= 40
    assert len(shown) >= 40


def test_each_case_shows_something_else() -> None:
    shown = [path.read_text(encoding="utf-8").partition(MARK)[2] for path in CASES]
    assert len(set(shown)) == len(CASES)
