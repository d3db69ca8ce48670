"""The command line in a process of its own: its exit code, what it says, and what it took."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.oracle_io import ROOT

SECONDS = 200.0
"""What any command may take on a machine that is busy with other things; a hang takes longer."""


@dataclass(frozen=True, slots=True)
class Done:
    """How a command ended; `code` is None where it had to be killed. `peak` is in bytes, of its workers too."""

    code: int | None
    out: str
    err: str
    peak: int

    def refused(self, code: int, *parts: str) -> None:
        """Assert that it ended with this exit code, in flowc's own words, and said these."""
        assert self.code == code, (self.code, self.err[-2000:])
        assert self.err.startswith("error["), self.err[:2000]
        assert "Traceback" not in self.err
        assert "panicked" not in self.err
        for part in parts:
            assert part in self.err, self.err[:2000]


def flowc(*arguments: object, cwd: Path, stdin: bytes = b"", shell: str = "", **environment: str | None) -> Done:
    """Run `flowc` below a folder, with a home of its own there; `shell` is run before, as `ulimit -v 300000`."""
    home = cwd / "home"
    home.mkdir(exist_ok=True)
    kept = {k: v for k, v in os.environ.items() if k not in ("FLOWC_CACHE", "ORT_DISABLE_TELEMETRY")}
    merged = {**kept, "HOME": str(home), "PYTHONPATH": str(ROOT), **environment}
    command: Sequence[str | bytes] = [sys.executable, "-m", "flowc", *(os.fsencode(str(a)) for a in arguments)]
    if shell:
        command = ["bash", "-c", f'{shell}; exec "$@"', "flowc", *command]
    out, err = cwd / ".out", cwd / ".err"
    with out.open("wb") as a, err.open("wb") as b:
        process = subprocess.Popen(
            command, cwd=cwd, stdin=subprocess.PIPE, stdout=a, stderr=b,
            env={k: v for k, v in merged.items() if v is not None},
        )  # fmt: skip
        late = threading.Timer(SECONDS, process.kill)
        late.start()
        assert process.stdin is not None
        try:
            process.stdin.write(stdin)
            process.stdin.close()
        except BrokenPipeError:
            pass
        _, status, usage = os.wait4(process.pid, 0)
        late.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
    code = None if process.returncode == -9 else process.returncode
    said, told = (f.read_bytes().decode("utf-8", "replace") for f in (out, err))
    out.unlink()
    err.unlink()
    return Done(code, said, told, usage.ru_maxrss * 1024)


def below(folder: Path) -> set[str]:
    """Paths of all files and folders below a folder."""
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}
