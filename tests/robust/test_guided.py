from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.oracle_io import ROOT
from tests.robust.guided import READERS

RUNS = 50_000


@pytest.mark.slow
@pytest.mark.parametrize("reader", sorted(READERS))
def test_what_follows_the_branches_finds_nothing(reader: str, tmp_path: Path) -> None:
    if importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed: pip install atheris")
    seeds = tmp_path / "seeds"
    seeds.mkdir()
    for example in sorted((ROOT / "examples").glob("*.yaml")) if reader == "yaml" else ():
        shutil.copyfile(example, seeds / example.name)
    command = [sys.executable, "-m", "tests.robust.guided", reader, f"-runs={RUNS}", "-max_total_time=240", str(seeds)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "DONE" in done.stderr
