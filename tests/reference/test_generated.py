from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flowc.codes import CODES
from flowc.reference import __main__ as reference
from flowc.spec.spec import METADATA_SYMBOLS
from tests.oracle_io import ROOT


@pytest.mark.parametrize("seed", ["1", "2"])
def test_generated_files_do_not_depend_on_the_order_of_sets(seed: str) -> None:
    command = [sys.executable, "-m", "flowc.reference", "--check"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_check_of_generated_files_can_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "stale").write_text("old")
    monkeypatch.setattr(reference, "generated", lambda: {tmp_path / "stale": "new", tmp_path / "absent": "x"})
    assert reference.main(["--check"]) == 1
    assert capsys.readouterr().err.count("is not up to date") == 2
    assert reference.main([]) == 0
    assert reference.main(["--check"]) == 0
    assert (tmp_path / "stale").read_text() == "new"
    assert reference.main(["--chekc"]) == 2


def test_metadata_symbols_are_documented() -> None:
    assert all(f"`{name}`" in reference.page() for name in METADATA_SYMBOLS)
    assert all(f"`{code}`" in reference.codes_page() for code in CODES)
