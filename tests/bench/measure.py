"""Wall time and peak memory of commands, taken in turn so that a noisy machine disturbs them alike.

Only the standard library: what the measuring process holds itself would count as its children's memory, because
Linux hands the peak of the parent's pages on to a child until it executes its own program.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Contender:
    """A command to measure. `prepare` runs before every measurement, outside of it; `output` must exist after it."""

    name: str
    command: tuple[str, ...]
    output: Path
    prepare: Callable[[], None]
    environment: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True, slots=True)
class Sample:
    """One run: wall seconds, and the resident memory of its largest process in bytes."""

    seconds: float
    peak: int


class Failed(Exception):
    """A command did not do what it was measured for."""


def measure(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Sample:
    """Run a command to its end, its output into `log`; raises Failed when it exits with anything but 0."""
    with log.open("wb") as stream:
        started = time.perf_counter()
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=stream,
            env={**os.environ, **environment},
        )
        _, status, usage = os.wait4(child.pid, 0)
        seconds = time.perf_counter() - started
    child.returncode = os.waitstatus_to_exitcode(status)  # it is reaped: Popen must not wait for it again
    if child.returncode != 0:
        tail = log.read_text(encoding="utf-8", errors="replace").splitlines()[-20:]
        raise Failed("\n".join([f"exit code {child.returncode} from: {' '.join(command)}", *tail]))
    return Sample(seconds, usage.ru_maxrss * 1024)


def in_turn(contenders: Iterable[Contender], rounds: int, log: Path) -> dict[str, list[Sample]]:
    """`rounds` samples of each, one of each per round, after a round that only warms the page cache."""
    contenders = tuple(contenders)
    samples: dict[str, list[Sample]] = {contender.name: [] for contender in contenders}
    for number in range(rounds + 1):
        for contender in contenders:
            contender.prepare()
            os.sync()  # nobody pays for what the one before left to be written
            sample = measure(contender.command, contender.environment, log)
            if not contender.output.is_file():
                raise Failed(f"{contender.name} exited with 0 and wrote no {contender.output.name}")
            if number:
                samples[contender.name].append(sample)
            print(
                f"round {number}/{rounds}  {contender.name}  {sample.seconds:.2f} s  {sample.peak / 1e6:.0f} MB",
                file=sys.stderr,
                flush=True,
            )
    return samples


@dataclass(frozen=True, slots=True)
class Summary:
    """Medians of a contender's samples, and the range of its times."""

    seconds: float
    fastest: float
    slowest: float
    peak: float

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> Summary:
        """Summary of at least one sample."""
        times = [sample.seconds for sample in samples]
        peak = statistics.median(sample.peak for sample in samples)
        return cls(statistics.median(times), min(times), max(times), peak)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows as aligned text, the first of them the head; first column left, the others right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])
