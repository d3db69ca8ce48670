"""Every generated page and record, by one command.

    python -m tests.project.pages            write what takes seconds and needs nothing          (make gen)
    python -m tests.project.pages --check    say what is stale, as far as seconds can tell       (make generated)
    python -m tests.project.pages --full     write all; each long part says what it needs        (make gen-full)

Exit codes: 0 done; 1 something is stale, or a long run found a fault; 4 something that a part needs is missing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

from flowc.reference import __main__ as reference
from tests.bench import cuda_page
from tests.mutation import __main__ as mutation
from tests.oracle_io import ROOT, shared_folder
from tests.parity import __main__ as parity
from tests.parity import fuzz_configs
from tests.parity.test_parity import listed_cases, parity_cases
from tests.passes import report
from tests.project import built_bytes


@dataclass(frozen=True, slots=True)
class Quick:
    """What can be written in seconds from this checkout alone."""

    name: str
    stale: Callable[[], list[str]]
    write: Callable[[], object]


@dataclass(frozen=True, slots=True)
class Long:
    """What takes minutes, or what is not in this checkout. `stale` is what a look at the page alone can tell."""

    name: str
    needs: str
    missing: Callable[[], list[str]]
    stale: Callable[[], list[str]]
    write: Callable[[], int]


def _stale_reference() -> list[str]:
    return [
        str(path.relative_to(ROOT))
        for path, text in reference.generated().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]


def _stale_passes() -> list[str]:
    return [] if report.PASSES.read() == report.passes_part().strip("\n") else ["docs/passes.md, the passes in order"]


def _missing_cases() -> list[str]:
    absent = sorted(set(listed_cases()) - set(parity_cases()))
    return [f"{len(absent)} oracle cases ({', '.join(absent[:3])} …)"] if absent else []


def _write_figures() -> int:
    report.FIGURES.write(report.figures(report.MODELS))
    return 0


QUICK = (
    Quick("the schema, the stage reference, the diagnostics", _stale_reference, lambda: reference.main([])),
    Quick("docs/cuda.md", cuda_page.stale, cuda_page.write),
    Quick("docs/passes.md: each pass", _stale_passes, lambda: report.PASSES.write(report.passes_part())),
)
LONG = (
    Long(
        "docs/passes.md: what the passes did to real models",
        "SmolLM2, Gemma 3 270M and MiniLM (examples/fetch.py smollm2 gemma3-270m minilm); a minute",
        report.missing,
        report.stale_figures,
        _write_figures,
    ),
    Long("docs/verify.md: the planted faults", "five minutes", list, mutation.stale, mutation.main),
    Long(
        "docs/parity.md",
        f"all oracle cases (FLOWC_SHARED, now {shared_folder() or 'none'}); five minutes",
        _missing_cases,
        parity.stale,
        lambda: parity.main([]),
    ),
    Long(
        "docs/config-fuzz.md",
        "torch and transformers (make bench-peers); forty minutes",
        fuzz_configs.missing,
        fuzz_configs.stale,
        lambda: fuzz_configs.main([]),
    ),
    Long(
        "golden/built_bytes.json",
        f"{', '.join(built_bytes.MADE_WITH)} in the versions of the record; a minute",
        list,
        built_bytes.stale,
        built_bytes.write,
    ),
)


def check() -> int:
    """Say what is stale, and the command that writes it."""
    stale = [(what, "make gen") for part in QUICK for what in part.stale()]
    stale += [(what, "make gen-full") for part in LONG for what in part.stale()]
    for what, command in stale:
        print(f"not up to date: {what}: run `{command}`", file=sys.stderr)
    return int(bool(stale))


def full() -> int:
    """Write the long parts whose needs are met; name the others."""
    worst = 0
    for part in LONG:
        print(f"{part.name}: needs {part.needs}", flush=True)
        missing = part.missing()
        if missing:
            print(f"{part.name} is left as it is, for want of {', '.join(missing)}", file=sys.stderr)
        worst = max(worst, 4 if missing else part.write())
    return worst


def main(arguments: list[str]) -> int:
    """Write or check."""
    if arguments not in ([], ["--check"], ["--full"]):
        print("usage: python -m tests.project.pages [--check | --full]", file=sys.stderr)
        return 2
    if arguments == ["--check"]:
        return check()
    for part in QUICK:
        part.write()
    return full() if arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
