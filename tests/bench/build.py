"""Time and memory of `flowc build` beside the builders of onnxruntime-genai and mobius, on the same float32 folder.

    make bench                               # makes the peers' venv, then this with its defaults
    python -m tests.bench.build --rounds 3 --no-large

Every contender reads the SmolLM2-135M-Instruct checkpoint (float32, 538 MB) and writes a whole ONNX model. They run in
turn; the table gives medians, and ratios to the faster and to the leaner of the peers. Two floors stand beside them:
copying the checkpoint, and starting flowc. A second table is `--in-place` on 8 GB of seeded weights.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.bench.measure import Contender, Failed, Summary, in_turn, table

ROOT = Path(__file__).resolve().parent.parent.parent
FLOWC = (sys.executable, "-m", "flowc")
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
COMPILED = {"PYTHONDONTWRITEBYTECODE": ""}
"""Everybody's modules are compiled once, in the round that warms up, as those of an installed package are."""
PEERS = ("onnxruntime-genai", "mobius")

# What flowc is meant to reach: share of the faster peer's time, and of the leaner peer's memory.
WALL_GOALS = {"flowc, verify off": 0.25, "flowc, verify quick": 0.5}
PEAK_GOALS = {"flowc, verify off": 0.35}
LARGE_SECONDS, LARGE_PEAK = 2.0, 400e6


def checkpoint(cache: Path, peers: Path) -> Path:
    """The float32 folder of SmolLM2, made on first use: fetched as GGUF, converted by transformers."""
    folder = cache / "models" / "smollm2-hf"
    if not (folder / "model.safetensors").is_file():
        fetch = [sys.executable, str(ROOT / "examples" / "fetch.py"), "smollm2", "--to", str(cache)]
        gguf = subprocess.run(fetch, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1]
        convert = [str(peers / "bin" / "python"), str(ROOT / "tests" / "bench" / "hf_folder.py"), gguf, str(folder)]
        subprocess.run(convert, check=True)
    return folder


def emptied(folder: Path) -> Callable[[], None]:
    """Makes a folder new and empty."""

    def prepare() -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)

    return prepare


def without_builds(folder: Path) -> Callable[[], None]:
    """Removes what earlier builds left in a folder that also holds the weights."""

    def prepare() -> None:
        for path in folder.glob("built.*"):
            path.unlink()

    return prepare


def imported(source: Path, spec: Path) -> Path:
    """A spec of the checkpoint, written by flowc."""
    spec.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run([*FLOWC, "import", str(source), "-o", str(spec)], check=True, stdout=subprocess.DEVNULL)
    return spec


def in_place(folder: Path) -> Contender:
    """A build that refers to the safetensors of the folder it writes to."""
    spec = imported(folder, folder / "model.yaml")
    built = folder / "built.onnx"
    command = (*FLOWC, "build", str(spec), "-o", str(built), "--in-place", "--verify", "off")
    return Contender("flowc, in place, verify off", command, built, without_builds(folder), COMPILED)


def contenders(source: Path, peers: Path, scratch: Path) -> list[Contender]:
    """All that build SmolLM2, and the two floors."""
    spec = imported(source, scratch / "spec" / "model.yaml")
    beside = scratch / "in-place"
    shutil.copytree(source, beside, dirs_exist_ok=True)
    found: list[Contender] = []

    def add(name: str, command: Sequence[str], output: str, environment: Mapping[str, str] | None = None) -> None:
        folder = scratch / name.replace(" ", "-").replace(",", "")
        words = tuple(word.replace("OUT", str(folder)) for word in command)
        found.append(Contender(name, words, folder / output, emptied(folder), {**COMPILED, **(environment or {})}))

    python = str(peers / "bin" / "python")
    genai = (python, "-m", "onnxruntime_genai.models.builder", "-i", str(source), "-p", "fp32", "-e", "cpu")
    mobius = (str(peers / "bin" / "mobius"), "build", "--model", str(source), "OUT", "--ep", "cpu", "--dtype", "f32")
    build = (*FLOWC, "build", str(spec), "-o", "OUT/model.onnx", "--verify")
    add("onnxruntime-genai", (*genai, "-o", "OUT", "-c", "OUT/cache"), "model.onnx", OFFLINE)
    add("mobius", mobius, "model.onnx", OFFLINE)
    add("flowc, verify off", (*build, "off"), "model.onnx")
    add("flowc, verify quick", (*build, "quick"), "model.onnx")
    found.append(in_place(beside))
    add("cp, for scale", ("cp", str(source / "model.safetensors"), "OUT/copy"), "copy")
    return found


def report(summaries: Mapping[str, Summary]) -> str:
    """The table of SmolLM2, and whether flowc reaches its goals."""
    wall = min(summaries[peer].seconds for peer in PEERS)
    peak = min(summaries[peer].peak for peer in PEERS)
    rows = [("build of SmolLM2 135M, float32", "median s", "min..max", "of faster peer", "peak MB", "of leaner peer")]
    for name, found in summaries.items():
        spread = f"{found.fastest:.2f}..{found.slowest:.2f}"
        ratios = (f"{found.seconds / wall:.3f}", f"{found.peak / 1e6:.0f}", f"{found.peak / peak:.3f}")
        rows.append((name, f"{found.seconds:.2f}", spread, *ratios))
    lines = [table(rows), ""]
    for name, goal in WALL_GOALS.items():
        lines.append(verdict(f"{name}: time, of the faster peer", summaries[name].seconds / wall, goal))
    for name, goal in PEAK_GOALS.items():
        lines.append(verdict(f"{name}: memory, of the leaner peer", summaries[name].peak / peak, goal))
    return "\n".join(lines)


def large_report(found: Summary, size: int) -> str:
    """What the build of the large folder took, beside its goals."""
    return "\n".join(
        [
            f"in place on {size / 1e9:.1f} GB, verify off ({found.fastest:.2f}..{found.slowest:.2f} s)",
            verdict("seconds", found.seconds, LARGE_SECONDS),
            verdict("peak MB", found.peak / 1e6, LARGE_PEAK / 1e6),
        ]
    )


def verdict(what: str, value: float, goal: float) -> str:
    """One line: a figure beside what it is meant to be at most."""
    return f"  {what}: {value:.3g} (goal: at most {goal:g}) {'reached' if value <= goal else 'MISSED'}"


def large(scratch: Path, rounds: int, layers: int) -> tuple[Summary, int]:
    """In place on a large seeded folder; the folder goes when the measurement ends."""
    folder = scratch / "large"
    try:
        make = [sys.executable, "-m", "tests.bench.large_model", str(folder), "--layers", str(layers)]
        subprocess.run(make, check=True, cwd=ROOT)
        size = (folder / "model.safetensors").stat().st_size
        (samples,) = in_turn([in_place(folder)], rounds, scratch / "log.txt").values()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return Summary.of(samples), size


def main() -> int:
    """The command line. Exit codes: 0 measured, 1 a contender failed, 4 the peers are not installed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cache = Path(os.environ.get("FLOWC_CACHE") or Path.home() / ".cache" / "flowc")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", type=Path, default=ROOT / ".venvs" / "peers", help="venv (default: %(default)s)")
    parser.add_argument("--scratch", type=Path, default=ROOT / "out" / "bench", help="default: %(default)s")
    parser.add_argument("--no-large", action="store_true", help="leave the 8 GB folder out")
    parser.add_argument("--large-layers", type=int, default=32, metavar="N", help="0.25 GB each (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    options = parser.parse_args()
    if not (options.peers / "bin" / "mobius").is_file():
        print("the peers are not installed: make bench-peers", file=sys.stderr)
        return 4
    figures: dict[str, dict[str, float]] = {}
    try:
        options.scratch.mkdir(parents=True, exist_ok=True)
        entered = contenders(checkpoint(cache, options.peers), options.peers, options.scratch)
        samples = in_turn(entered, options.rounds, options.scratch / "log.txt")
        summaries = {name: Summary.of(taken) for name, taken in samples.items()}
        print(report(summaries))
        if not options.no_large:
            found, size = large(options.scratch, options.rounds, options.large_layers)
            print(large_report(found, size))
            summaries[f"in place, {size} bytes"] = found
    except (Failed, subprocess.CalledProcessError) as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(options.scratch, ignore_errors=True)
    if options.json:
        figures = {name: {"seconds": found.seconds, "peak_bytes": found.peak} for name, found in summaries.items()}
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
