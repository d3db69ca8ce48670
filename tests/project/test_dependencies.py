"""What flowc needs to run is what its product imports, no more and no less."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from flowc.report.doctor import NEEDED
from tests.oracle_io import ROOT

IMPORTED_AS = {"pyyaml": "yaml", "onnx-ir": "onnx_ir"}
"""Packages that are imported under another name."""

OPTIONAL = {"torch", "transformers"}
"""What the extra `parity` brings."""


def imported(folder: Path) -> Iterator[str]:
    """Top-level names of everything that the modules of a folder import, wherever they do."""
    for path in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                yield from (name.name.partition(".")[0] for name in node.names)
            elif isinstance(node, ast.ImportFrom) and node.module:
                yield node.module.partition(".")[0]


def required() -> list[str]:
    """Names of the packages that pyproject.toml requires to run."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return [re.split(r"[<>=!~ \[]", line)[0] for line in project["dependencies"]]


def test_every_requirement_is_imported_and_every_import_required() -> None:
    found = {name for room in ("flowc", "lowering", "passes") for name in imported(ROOT / room)}
    foreign = found - set(sys.stdlib_module_names) - {"flowc", "__future__"}
    assert foreign - OPTIONAL == {IMPORTED_AS.get(name.lower(), name.lower()) for name in required()}


def test_doctor_looks_for_every_requirement() -> None:
    assert {name.lower() for name in NEEDED} == {name.lower() for name in required()}
