"""Plants every compiler fault in a model with real-like weights.

python -m tests.realistic.faults [--seeds N] [--first SEED]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from flowc.build.compiled import Request
from tests.mutation.faults import FAULTS, Fault
from tests.mutation.planting import Verdict, planted
from tests.oracle_io import ROOT
from tests.realistic.models import Model


def planted_in(fault: Fault, seed: int, folder: Path) -> Verdict:
    """What `flowc verify` says of the fault's example, built with the fault and real-like weights.

    The weights lie beside the build, and verify takes them from there.
    """
    model = Model(ROOT / "examples" / f"{fault.example}.yaml")
    (folder / "out").mkdir()
    return planted(fault, folder / "out", model.compiled(folder, seed, Request()))


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.realistic.faults", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    options = parser.parse_args()
    missed = count = 0
    for seed in range(options.first, options.first + options.seeds):
        for fault in FAULTS:
            with tempfile.TemporaryDirectory() as folder:
                verdict = planted_in(fault, seed, Path(folder))
            count += 1
            if not verdict.caught:
                missed += 1
                print(f"missed: {fault.name} ({fault.example}), seed {seed}", flush=True)
    print(f"{count} planted, {missed} missed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
