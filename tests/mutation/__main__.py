"""Plants every fault and writes the tables of docs/verify.md.

python -m tests.mutation
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

from tests.mutation.damage import FILE_FAULTS
from tests.mutation.faults import FAULTS
from tests.mutation.planting import Verdict, damaged, planted
from tests.oracle_io import ROOT

PAGE = ROOT / "docs" / "verify.md"
BEGIN, END = "<!-- faults: written by `python -m tests.mutation` -->", "<!-- end of faults -->"


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


def main() -> int:
    """Write the page's part between its marks, at its end where it has none."""
    text, good = tables()
    page = PAGE.read_text(encoding="utf-8") if PAGE.is_file() else "# Verify\n"
    block = f"{BEGIN}\n{text}\n{END}"
    if BEGIN in page:
        page = re.sub(re.escape(BEGIN) + ".*?" + re.escape(END), lambda _: block, page, flags=re.DOTALL)
    else:
        page = f"{page.rstrip()}\n\n## Faults that were planted\n\n{block}\n"
    PAGE.write_text(page, encoding="utf-8")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
