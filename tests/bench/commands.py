"""Processor time of short commands beside an earlier checkout of flowc.

    make bench-commands BASE=../flowc-before
    python -m tests.bench.commands ../flowc-before --rounds 9

Both checkouts run in this interpreter, in turn, command by command; the table gives medians of user and system time,
the least of both, and ratios. Times of a machine that does other work too vary: the ratio of the least ones less so.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.bench.measure import table

ROOT = Path(__file__).resolve().parent.parent.parent
SMALL = ROOT / "examples" / "tiny-llama.yaml"
LARGE = {
    "hidden": 8192, "layers": 80, "heads": 64, "kv_heads": 8, "head_dim": 128, "ffn": 28672, "vocab": 128256,
}  # fmt: skip
"""Sizes of a 70B model, in place of the small spec's."""
COMMANDS: Mapping[str, tuple[Sequence[str], float]] = {
    "check, small": (["check", "small.yaml"], 0.76),
    "check, 70B": (["check", "large.yaml"], 0.71),
    "diff of specs": (["diff", "small.yaml", "other.yaml"], 0.34),
    "build, verify off": (["build", "small.yaml", "-o", "out/model.onnx", "--verify", "off"], 0.71),
}
"""Command lines, and the ratio to the base (commit f862f83) that was meant to be reached."""


def write_specs(folder: Path) -> None:
    """The specs that the commands name."""
    text = SMALL.read_text(encoding="utf-8")
    (folder / "small.yaml").write_text(text, encoding="utf-8")
    (folder / "other.yaml").write_text(text.replace("1e-5", "1e-6"), encoding="utf-8")
    for name, size in LARGE.items():
        lines = [f"  {name}: {size}" if line.startswith(f"  {name}: ") else line for line in text.splitlines()]
        text = "\n".join([*lines, ""])
    (folder / "large.yaml").write_text(text, encoding="utf-8")


def processor_time(checkout: Path, words: Sequence[str], folder: Path) -> float:
    """Seconds that a command of a checkout takes, user and system together; RuntimeError when it fails."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "PYTHONDONTWRITEBYTECODE": ""}
    shutil.rmtree(folder / "out", ignore_errors=True)  # a build of what is there already would build nothing
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "flowc", *words]
    ran = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if ran.returncode > 1:  # `diff` leaves with 1: the specs differ
        raise RuntimeError(f"{checkout}: flowc {' '.join(words)}\n{ran.stderr}")
    return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime


def compare(base: Path, rounds: int, folder: Path) -> dict[str, tuple[list[float], list[float]]]:
    """Times of each command in the base and here; a first round, which compiles modules, does not count."""
    write_specs(folder)
    found: dict[str, tuple[list[float], list[float]]] = {}
    for name, (words, _) in COMMANDS.items():
        times = [(processor_time(base, words, folder), processor_time(ROOT, words, folder)) for _ in range(rounds + 1)]
        found[name] = ([b for b, _ in times[1:]], [h for _, h in times[1:]])
    return found


def report(found: Mapping[str, tuple[Sequence[float], Sequence[float]]]) -> str:
    """The table: medians, least times, ratios and what was meant."""
    rows: list[tuple[str, ...]] = [("processor seconds", "base", "here", "ratio", "of least", "meant")]
    for name, (base, here) in found.items():
        medians = statistics.median(base), statistics.median(here)
        ratios = (medians[1] / medians[0], min(here) / min(base))
        rows.append((name, *(f"{m:.3f}" for m in medians), *(f"{r:.2f}" for r in ratios), f"{COMMANDS[name][1]:.2f}"))
    return table(rows)


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path, help="checkout of flowc to compare with")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    if not (options.base / "flowc" / "__main__.py").is_file():
        parser.error(f"'{options.base}' holds no flowc")
    with tempfile.TemporaryDirectory() as folder:
        print(report(compare(options.base.resolve(), options.rounds, Path(folder))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
