"""Plants every fault and writes the tables of docs/verify.md.

python -m tests.mutation
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.blocks import Block
from tests.mutation.damage import FILE_FAULTS
from tests.mutation.faults import FAULTS
from tests.mutation.planting import Verdict, damaged, planted
from tests.oracle_io import ROOT

TABLES = Block(ROOT / "docs" / "verify.md", "<!-- faults: written by `make gen-full` -->", "<!-- end of faults -->")


def line(name: str, verdict: Verdict) -> str:
    """A row of a table."""
    said = "caught" if verdict.caught else "**missed**"
    return f"| {name} | {said} | {', '.join(verdict.checks) or '–'} | {verdict.stage or '–'} |"


def tables() -> tuple[str, bool]:
    """Both tables as text, and whether every fault was caught."""
    found: list[tuple[str, Verdict]] = []
    for fault in FAULTS:
        with tempfile.TemporaryDirectory() as folder:
            found.append((f"{fault.name} ({fault.example})", planted(fault, Path(folder))))
        print(line(*found[-1]), flush=True)
    files: list[tuple[str, Verdict]] = []
    for fault in FILE_FAULTS:
        with tempfile.TemporaryDirectory() as folder:
            files.append((fault.name, damaged(fault.damage, Path(folder))))
        print(line(*files[-1]), flush=True)
    head = "| planted | verdict | checks that failed | first stage named |\n| --- | --- | --- | --- |"
    text = [f"### {len(found)} compiler faults", "", head, *(line(*f) for f in found), ""]
    text += [f"### {len(files)} file faults", "", head, *(line(*f) for f in files)]
    return "\n".join(text), all(v.caught for _, v in [*found, *files])


def stale() -> list[str]:
    """What a look at the page alone can tell: faults that it lacks, and rows of faults that are gone."""
    rows = [row.split(" | ")[0].removeprefix("| ") for row in TABLES.read().splitlines() if row.startswith("| ")]
    listed = set(rows) - {"planted", "---"}
    planted_today = {f"{f.name} ({f.example})" for f in FAULTS} | {f.name for f in FILE_FAULTS}
    lacks = [f"docs/verify.md lacks the fault '{name}'" for name in sorted(planted_today - listed)]
    return lacks + [f"docs/verify.md has the fault '{name}', which is gone" for name in sorted(listed - planted_today)]


def main() -> int:
    """Write the page's tables; exit code 1 when a fault was missed."""
    text, good = tables()
    TABLES.write(text)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
