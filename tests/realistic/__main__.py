"""Builds many models with real-like weights and counts what verify says of them.

    python -m tests.realistic COUNT [--first SEED] [--full-every N]

Every model is built and held to the checks of `--verify quick`, and each operator of each graph to its meaning; every
Nth one to the full verify. One line for each false alarm, and the counts by architecture at the end.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.realistic.judging import judged
from tests.realistic.models import models


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.realistic", description=__doc__)
    parser.add_argument("count", type=int)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--full-every", type=int, default=0)
    options = parser.parse_args()
    built, alarms = Counter[str](), Counter[str]()
    largest = 0.0
    for seed in range(options.first, options.first + options.count):
        model = models()[seed % len(models())]
        target = ("ort-cpu", "portable")[seed // len(models()) % 2]
        full = bool(options.full_every) and seed % options.full_every == 0
        with tempfile.TemporaryDirectory() as folder:
            verdict = judged(model, seed, target, Path(folder), full=full)
        built[model.name] += 1
        if built.total() % 100 == 0:
            print(f"{built.total()} built, {alarms.total()} false alarms", flush=True)
        largest = max(largest, verdict.largest)
        if verdict.alarms:
            alarms[model.name] += 1
            print(f"{model.name} {target} seed {seed}: {verdict.alarms[0]}", flush=True)
    for name in sorted(built):
        print(f"{name:28} {built[name]:5} built {alarms[name]:5} false alarms")
    print(f"{built.total()} built, {alarms.total()} false alarms, at most {largest:.2f} of what is allowed was used")
    return 1 if alarms else 0


if __name__ == "__main__":
    sys.exit(main())
