"""Holds what importers read from configurations against transformers, by the numbers of tiny random models.

python -m tests.parity.fuzz_configs [FAMILY ...] [--count N] [--seed S] [--keep FOLDER]

Every configuration is drawn (tests/parity/config_draws.py), made into a model by a process that has torch
(tests/parity/reference_worker.py), imported and computed by the meaning of flowc's graph; every tenth by onnxruntime
too. Each must be equal, or refused with the name of a field. docs/config-fuzz.md is written: the rows of the families
that are named, all of them by default.
"""

from __future__ import annotations

import argparse
import collections
import functools
import importlib.util
import json
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from flowc.build.compiled import Request
from flowc.compile import build, compile_file
from flowc.errors import FlowError, SpecError
from flowc.frontend.state import Options
from flowc.importers import import_checkpoint
from flowc.importers.defaults import CLASS_DEFAULTS
from flowc.ir.interpret import interpret
from tests.oracle_io import ROOT, Array
from tests.parity.config_draws import FAMILIES, draw
from tests.parity.harness import Model

TOLERANCE = 2e-4
"""Largest difference beside the largest number: wrong fields are off by a thousand times that."""
NOISE = 8.0
"""Where transformers' own float32 is further than that from its float64, so many times its error is allowed."""
EVERY = 10
PAGE = Path(ROOT) / "docs" / "config-fuzz.md"


@dataclass
class Tally:
    """What became of a family's configurations."""

    equal: int = 0
    refused: int = 0
    without: int = 0
    wrong: list[str] = field(default_factory=list[str])
    reasons: collections.Counter[str] = field(default_factory=collections.Counter[str])

    @property
    def compared(self) -> int:
        """Configurations that transformers computes something from."""
        return self.equal + self.refused + len(self.wrong)


class Worker:
    """The process that has torch."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [interpreter(), "-m", "tests.parity.reference_worker"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, cwd=ROOT,
        )  # fmt: skip

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """The answer to one request; RuntimeError when the process is gone."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker ended ({self.process.wait()}); has {interpreter()} torch and transformers?")
        return json.loads(line)

    def close(self) -> None:
        """Let the process end."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def interpreter() -> str:
    """A Python that has torch: FLOWC_PEERS, this one, or the one of `make bench-peers`."""
    named = os.environ.get("FLOWC_PEERS")
    if named or importlib.util.find_spec("torch") is not None:
        return named or sys.executable
    return str(Path(ROOT) / ".venvs" / "peers" / "bin" / "python")


def outcome(folder: Path, kind: str, *, through: bool) -> tuple[str, str]:
    """`equal`, `refused` or `wrong`, and why, for a checkpoint with its reference."""
    spec = folder / "model.yaml"
    try:
        imported = import_checkpoint(folder)
        spec.write_text(imported.text(folder), encoding="utf-8")
    except SpecError as error:
        return _refusal(error)
    phase = "prefill" if kind == "decoder" else "encode"
    try:
        compiled = compile_file(spec, Request(graphs=(phase,), options=Options(logits="all")))
    except FlowError as error:
        codes = {d.code for d in error.diagnostics}
        if codes == {"dynamic-rope"}:
            return "refused", "dynamic rope"
        return "wrong", f"the importer wrote what does not compile: {_one_line(error)}"
    checkpoint = compiled.checkpoint
    assert checkpoint is not None
    with np.load(folder / "reference.npz") as stored:
        arrays: dict[str, Array] = {name: stored[name] for name in stored.files}
    feeds = {k.partition("/")[2]: v for k, v in arrays.items() if k.startswith("in/")}
    wanted = {k.partition("/")[2]: v for k, v in arrays.items() if k.startswith("out/")}
    mask = feeds.get("attention_mask")
    noise = {k: _distance(v, arrays[f"wide/{k}"], mask) for k, v in wanted.items()}
    allowed = {k: max(TOLERANCE, NOISE * off if np.isfinite(off) else 0.0) for k, off in noise.items()}
    graph = compiled.expanded[phase]
    feeds = {k: v for k, v in feeds.items() if k in {i.name for i in graph.inputs}}
    ways = {"meaning": interpret(graph, feeds, checkpoint.read)}
    if through:
        build(compiled, folder / "out" / "model.onnx", verify="off")
        ways["onnxruntime"] = Model(compiled, folder / "out").run(phase, feeds)
    for way, results in ways.items():
        compared = [name for name in wanted if name in results]
        if not compared:
            return "wrong", f"{way}: no output in common ({', '.join(wanted)}; {', '.join(results)})"
        for name in compared:
            error = _distance(results[name], wanted[name], mask)
            if not error <= allowed[name]:
                return "wrong", f"{way}: {name} is off by {error:.2g}"
    return "equal", ""


def _refusal(error: SpecError) -> tuple[str, str]:
    """A refusal must name a field that the configuration has, and say where it stands there."""
    for found in error.diagnostics:
        if re.search(r"'\w+'", found.message) is None or found.span is None:
            return "wrong", f"refused without a field: {_one_line(error)}"
    first = error.diagnostics[0]
    names = re.findall(r"'(\w+)'", first.message)
    return "refused", f"{names[0]}: {first.hint or first.message}"[:110]


def _one_line(error: FlowError) -> str:
    return "; ".join(f"{d.code}: {d.message}" for d in error.diagnostics)[:300]


def _distance(got: Array, want: Array, mask: Array | None) -> float:
    if got.shape != want.shape:
        return float("inf")
    if mask is not None and got.shape[:2] == mask.shape:
        got, want = got[mask.astype(bool)], want[mask.astype(bool)]
    return float(np.abs(got - want).max() / max(1.0, float(np.abs(want).max())))


@functools.cache
def own_worker() -> Worker:
    """The worker of this process."""
    return Worker()


def fuzz(count: int, seed: int, keep: Path | None, family: str) -> Tally:
    """Draw until `count` configurations were compared."""
    tally, number, worker = Tally(), 0, own_worker()
    while tally.compared < count and number < 6 * count:
        number += 1
        r = random.Random(f"{family} {seed} {number}")
        kind, name, fields = draw(r, family)
        with tempfile.TemporaryDirectory() as made:
            folder = Path(made)
            (folder / "config.json").write_text(json.dumps(fields, indent=1), encoding="utf-8")
            answer = worker.ask({"folder": made, "class": name, "kind": kind, "seed": number})
            if "ok" not in answer:
                tally.without += 1
                tally.reasons["transformers: " + str(next(iter(answer.values())))[:90]] += 1
                continue
            try:
                verdict, why = outcome(folder, kind, through=tally.compared % EVERY == 0)
            except Exception as error:
                verdict, why = "wrong", f"{type(error).__name__}: {error}"
            if verdict == "equal":
                tally.equal += 1
            elif verdict == "refused":
                tally.refused += 1
                tally.reasons[why] += 1
            else:
                tally.wrong.append(f"{family} {number}: {why}\n{json.dumps(fields)}")
                if keep is not None:
                    shutil.copytree(folder, keep / f"{family}-{seed}-{number}", dirs_exist_ok=True)
    return tally


def differing_defaults(worker: Worker) -> Iterator[str]:
    """Fields of flowc's table that the classes have another default for."""
    classes = worker.ask({"defaults": True})
    for model_type, fields in CLASS_DEFAULTS.items():
        for name, value in fields.items():
            found = classes[model_type].get(name)
            if found != value or type(found) is not type(value):
                yield f"{model_type}.{name} is {found!r}, not {value!r}"


HEAD = """# Configurations beside transformers

Written by `make parity-fuzz`; do not edit. Each configuration is drawn: ropes, windows, layer types and activations in
new, old, mixed, null, stray and missing fields. transformers makes a tiny model of it, every weight random, and both
compute a padded batch. *Equal*: all numbers within 2e-4 of the largest (or eight times what transformers' float32 is
off from its float64, where that is more). *Refused*: `flowc import` names a field and its place. *Not counted*:
transformers itself fails, or gives no finite number. Nomic Vision, FLUX and NomicBERT's remote code are not in
transformers.

| family | compared | equal | refused by name | wrong | not counted |
| --- | --- | --- | --- | --- | --- |
"""


def main(arguments: list[str]) -> int:
    """Fuzz the families and say what became of them."""
    parser = argparse.ArgumentParser(prog="python -m tests.parity.fuzz_configs")
    parser.add_argument("families", nargs="*", metavar="FAMILY")
    parser.add_argument("--count", type=int, default=190)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="where folders of wrong ones go")
    parser.add_argument("--reasons", action="store_true", help="say why configurations are refused or not counted")
    options = parser.parse_args(arguments)
    bad = list(differing_defaults(own_worker()))
    own_worker().close()
    own_worker.cache_clear()
    families: list[str] = options.families or list(FAMILIES)
    counts = {} if not options.families else _written()
    with ProcessPoolExecutor(options.jobs) as pool:
        found = pool.map(functools.partial(fuzz, options.count, options.seed, options.keep), families)
        for family, tally in zip(families, found, strict=True):
            counts[family] = (tally.compared, tally.equal, tally.refused, len(tally.wrong), tally.without)
            print(_row(family, counts[family]), flush=True)
            bad += tally.wrong
            for why, times in tally.reasons.most_common(12) if options.reasons else ():
                print(f"    {times:4} {why}", flush=True)
    print("\n".join(bad), file=sys.stderr)
    rows = [_row(family, counts[family]) for family in FAMILIES if family in counts]
    rows.append(_row("all", [sum(column) for column in zip(*counts.values(), strict=True)]))
    PAGE.write_text(HEAD + "\n".join(rows) + "\n", encoding="utf-8")
    return 1 if bad else 0


def _row(name: str, cells: Iterable[int]) -> str:
    return f"| {name} | {' | '.join(map(str, cells))} |"


def stale() -> list[str]:
    """What a look at the page tells: families that it leaves out, and counts of wrong ones."""
    counts = _written()
    found = [f"docs/config-fuzz.md, without {name}" for name in FAMILIES if name not in counts]
    return found + [f"docs/config-fuzz.md, {name} wrong" for name, cells in counts.items() if cells[3]]


def missing() -> list[str]:
    """What the fuzz needs and does not find."""
    found = importlib.util.find_spec("torch") is not None or Path(interpreter()).is_file()
    return [] if found else [f"torch and transformers (FLOWC_PEERS, now {interpreter()})"]


def _written() -> dict[str, tuple[int, ...]]:
    """The counts of the page as it is."""
    text = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else ""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if re.match(r"\| [\w-]+ \| \d", line)]
    return {name: tuple(map(int, cells)) for name, *cells in rows if name in FAMILIES}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
