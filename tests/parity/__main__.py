"""Writes docs/parity.md: every oracle case on every target, kind of comparison by kind, worst error beside tolerance.

python -m tests.parity [CASE ...]
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable

from tests.oracle_io import ROOT, Oracle, case_folders
from tests.parity.harness import Check, check_case
from tests.parity.test_parity import TARGETS, listed_cases, parity_cases

KINDS: tuple[tuple[str, str], ...] = (
    ("prefill", r"prefill logits$"),
    ("decode steps", r"step \d+ logits$"),
    ("several tokens over a past", r"several tokens logits$"),
    ("caches and states", r"^(?!.*padded).* (key|value|conv_state|recurrent_state) \d+$"),
    ("padded rows", r"-padded row"),
    ("pair = unified", r"unified = "),
    ("interpreter", r"interpreter"),
    ("outputs", r"onnxruntime"),
)
"""Columns of the table, and which comparisons belong to each."""

PAGE = ROOT / "docs" / "parity.md"
HEAD = """# Parity with HuggingFace

Written by `make parity` or `make gen-full`; do not edit. Each number is the worst absolute difference from what
transformers computes in float32 (for `padded rows` and `pair = unified`: from the same graphs' own numbers for a row
alone, and from the pair), over all runs of the case; valid positions only. Both batches of every case are in it, one
left- or right-padded. The tolerance (of results / of caches and states) is absolute, six times the rounding noise that
the case records, plus 1e-5 relative. `–`: the case has nothing of that kind.
"""


def row(case: str, target: str, checks: Iterable[Check]) -> tuple[str, bool]:
    """A line of the table, and whether all of it is within tolerance."""
    checks = list(checks)
    cells: list[str] = []
    for _, pattern in KINDS:
        found = [c for c in checks if re.search(pattern, c.what)]
        if not found:
            cells.append("–")
            continue
        worst = max(found, key=lambda c: c.ratio)
        cells.append(f"{max(c.error for c in found):.1e}" + ("" if worst.good else " **off**"))
    good = all(c.good for c in checks)
    tolerances = [f"{allowed:.1e}" for allowed in sorted({c.allowed for c in checks}, reverse=True)]
    verdict = "equal" if good else "**DIFFERENT**"
    return f"| {case} | {target} | {verdict} | {' / '.join(tolerances)} | {' | '.join(cells)} |", good


def stale() -> list[str]:
    """What a look at the page alone can tell: another head, and cases or tolerances that are not today's."""
    text = PAGE.read_text(encoding="utf-8")
    found = [] if text.startswith(HEAD + "\n" + columns()) else ["docs/parity.md has another head"]
    for case in sorted(set(parity_cases()) & set(case_folders())):
        for target in TARGETS:
            rows = [line.split(" | ") for line in text.splitlines() if line.startswith(f"| {case} | {target} | ")]
            if len(rows) != 1:
                found.append(f"docs/parity.md has {len(rows)} rows of {case} on {target}")
            elif rows[0][3] not in tolerances(Oracle(case_folders()[case])):
                found.append(f"docs/parity.md has another tolerance of {case} on {target}: {rows[0][3]}")
    return found


def tolerances(oracle: Oracle) -> tuple[str, str]:
    """How the tolerance of a case is written: of results, and where caches are compared, of them too."""
    results = f"{oracle.allowed():.1e}"
    caches = f" / {oracle.allowed(cached=True):.1e}" if oracle.meta["kind"] == "decoder" else ""
    return results, results + caches


def columns() -> str:
    """The head of the table."""
    return f"| case | target | verdict | tolerance | {' | '.join(k for k, _ in KINDS)} |\n|" + " --- |" * (
        4 + len(KINDS)
    )


def main(names: list[str]) -> int:
    """Run the cases (all by default), write the page, and say whether everything is equal."""
    cases = names or parity_cases()
    absent = [] if names else sorted({*listed_cases()} - {*cases})
    if absent:
        print(f"not at hand: {', '.join(absent)} (FLOWC_SHARED)", file=sys.stderr)
        return 4
    lines = [HEAD, columns()]
    worst = 0
    for case in cases:
        for target in TARGETS:
            line, good = row(case, target, check_case(Oracle(case_folders()[case]), target))
            print(line, flush=True)
            lines.append(line)
            worst = max(worst, not good)
    if not names:
        PAGE.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
