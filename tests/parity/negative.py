"""Planted mistakes: a spec is changed before it is built, and the parity checks must see it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from flowc.importers import ImportedSpec, import_checkpoint
from tests.oracle_io import Oracle, case_folders
from tests.parity import harness


def assert_seen(case: str, pattern: str, replacement: str, monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    """Parity of a case must fail once the text `pattern` of its spec is replaced: a decoder's in the prefill."""

    def planted(text: str) -> str:
        changed, count = re.subn(pattern, replacement, text)
        assert count, f"'{pattern}' is not in the spec:\n{text}"
        assert changed != text
        # A tensor that the mistake leaves over would be reported before anything is built.
        block = r"weights:\s+\{?file: ([^,}\n]*)(.|\n)*?\ninputs:"
        return re.sub(block, r"weights: {file: \1, allow_unused: ['*']}\ninputs:", changed)

    assert_spec_seen(case, planted, monkeypatch, target)


def assert_spec_seen(case: str, plant: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, target: str) -> None:
    """As `assert_seen`, the mistake planted by a function of the spec's text."""

    class Planted:
        def __init__(self, spec: ImportedSpec) -> None:
            self.spec = spec

        def text(self, folder: Path) -> str:
            return plant(self.spec.text(folder))

    folder = case_folders().get(case)
    if folder is None:
        pytest.skip(f"oracle case {case} is not at hand")

    def planted(path: Path) -> Planted:
        return Planted(import_checkpoint(path))

    monkeypatch.setattr(harness, "import_checkpoint", planted)
    checks = harness.check_case(Oracle(folder), target)
    off = [c.what for c in checks if not c.good]
    assert any("prefill logits" in what or "onnxruntime" in what for what in off), off
