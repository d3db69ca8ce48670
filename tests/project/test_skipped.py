"""What a plain clone cannot run is told in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.oracle_io import ROOT


def test_skipped_tests_are_told_in_one_line_with_the_reason(tmp_path: Path) -> None:
    files = ("tests/golden/test_oracle_data.py", "tests/stages/test_pooled.py")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *files]
    environment = {**os.environ, "FLOWC_SHARED": str(tmp_path / "none")}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if "skipped" in line.lower() and "passed" not in line]
    assert len(lines) == 1, done.stdout
    assert "set FLOWC_SHARED" in lines[0]
