"""Text cases: a small spec, and below a mark what came out of it, which `pytest --update` writes again.

    # Two norms with the same weight and epsilon are computed once.
    pass: eliminate_common_subexpressions
    spec: |
      flowc: 1
      ...
    # What came out; `pytest --update` writes it.
    fired: [rms_norm~2]
    changes: |2
      - %...

A person writes what stands above the mark and reads what stands below it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

MARK = "# What came out; `pytest --update` writes it.\n"
FOLDER = Path(__file__).parent


def cases(kind: str) -> list[Path]:
    """The case files of a kind, by name."""
    return sorted((FOLDER / kind).glob("*.yaml"))


def given(path: Path) -> dict[str, Any]:
    """What a person wrote: everything above the mark."""
    text = path.read_text(encoding="utf-8").partition(MARK)[0]
    assert text.startswith("# "), f"{path.name} does not begin with a comment that says its idea"
    return yaml.safe_load(text)


def expected(found: Mapping[str, object]) -> str:
    """What came out, as it is written into a case: texts as blocks, all else as JSON, which is YAML too."""
    lines: list[str] = []
    for key, value in found.items():
        if isinstance(value, str) and value:
            body = "".join(f"  {line}\n" if line else "\n" for line in value.removesuffix("\n").split("\n"))
            lines.append(f"{key}: |2\n{body}")
        else:
            lines.append(f"{key}: {json.dumps(value, ensure_ascii=False)}\n")
    return "".join(lines)


def compare(path: Path, found: Mapping[str, object], *, update: bool) -> None:
    """Hold what came out against the case; with `update`, write it there."""
    text = path.read_text(encoding="utf-8")
    head, mark, recorded = text.partition(MARK)
    if update:
        path.write_text(f"{head.rstrip(chr(10))}\n{MARK}{expected(found)}", encoding="utf-8")
        return
    assert mark, f"{path.name} has no expected text: run pytest --update"
    assert expected(found) == recorded, f"{path.name}: run pytest --update and read the difference, if it is meant"
