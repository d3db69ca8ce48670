"""The command line in a process of its own: its exit code, what it says, and what it took."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.oracle_io import ROOT

SECONDS = 200.0
"""What any command may take on a machine that is busy with other things; a hang takes longer."""


_LAUNCH = """
import os, sys
child = os.fork()
if not child:
    os.execvp(sys.argv[2], sys.argv[2:])
_, status, usage = os.wait4(child, 0)
with open(sys.argv[1], "w") as file:
    file.write(f"{os.waitstatus_to_exitcode(status)} {usage.ru_maxrss}")
"""
"""Starts a command from a small process: Linux counts what the one that forks holds as the peak of what it starts."""


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
    out, err, took = cwd / ".out", cwd / ".err", cwd / ".took"
    command = [sys.executable, "-S", "-c", _LAUNCH, str(took), *command]
    with out.open("wb") as a, err.open("wb") as b:
        process = subprocess.Popen(
            command, cwd=cwd, stdin=subprocess.PIPE, stdout=a, stderr=b, start_new_session=True,
            env={k: v for k, v in merged.items() if v is not None},
        )  # fmt: skip
        late = threading.Timer(SECONDS, os.killpg, (process.pid, signal.SIGKILL))
        late.start()
        assert process.stdin is not None
        try:
            process.stdin.write(stdin)
            process.stdin.close()
        except BrokenPipeError:
            pass
        process.wait()
        late.cancel()
    code, peak = None, 0
    if took.exists():
        ended, peak = map(int, took.read_text().split())
        code = None if ended == -signal.SIGKILL else ended
        took.unlink()
    said, told = (f.read_bytes().decode("utf-8", "replace") for f in (out, err))
    out.unlink()
    err.unlink()
    return Done(code, said, told, peak * 1024)


def below(folder: Path) -> set[str]:
    """Paths of all files and folders below a folder."""
    return {str(p.relative_to(folder)) for p in folder.rglob("*")}
