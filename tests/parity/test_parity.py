from __future__ import annotations

import json

import pytest

from flowc.importers.family import families
from tests.oracle_io import ROOT, Oracle, case_folders
from tests.parity.harness import check_case

TARGETS = ("ort-cpu", "portable")


def parity_cases() -> list[str]:
    """Cases of families that have an importer, by name."""
    known = families()
    configs = {name: json.loads((folder / "config.json").read_text()) for name, folder in case_folders().items()
               if (folder / "config.json").is_file()}  # fmt: skip
    return sorted(
        name for name, config in configs.items() if config.get("model_type", config.get("_class_name")) in known
    )


def listed_cases() -> list[str]:
    """Cases of docs/parity.md, which was made with all of them at hand."""
    rows = (ROOT / "docs" / "parity.md").read_text(encoding="utf-8").split("\n| ")
    return sorted({row.split(" | ")[0] for row in rows if "| equal |" in row})


@pytest.mark.golden
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("case", sorted({*parity_cases(), *listed_cases()}))
def test_case_equals_huggingface(case: str, target: str) -> None:
    checks = check_case(Oracle(case_folders()[case]), target)
    bad = [f"{c.what}: {c.error:.3g} (allowed {c.allowed:g})" for c in checks if not c.good]
    assert checks
    assert not bad, "\n".join(bad[:20])
