"""Plants a mistake in an oracle case and runs its parity checks."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from flowc.importers import ImportedSpec, import_checkpoint
from tests.oracle_io import Oracle, case_folders
from tests.parity import harness


def in_spec(pattern: str, replacement: str) -> Callable[[str], str]:
    """Replaces text of a spec; the text must be there, and must become another."""

    def planted(text: str) -> str:
        changed, count = re.subn(pattern, replacement, text)
        assert count, f"'{pattern}' is not in the spec:\n{text}"
        assert changed != text
        return leftovers_allowed(changed)

    return planted


def leftovers_allowed(text: str) -> str:
    """A tensor that a mistake leaves over would be reported before anything is built."""
    block = r"weights:\s+\{?file: ([^,}\n]*)(.|\n)*?\ninputs:"
    return re.sub(block, r"weights: {file: \1, allow_unused: ['*']}\ninputs:", text)


def unchanged(text: str) -> str:
    """The spec as it is, for a mistake in the code."""
    return text


def off(case: str, plant: Callable[[str], str], monkeypatch: pytest.MonkeyPatch, target: str) -> list[str]:
    """Comparisons of a case that fail once `plant` has changed its spec; skips where the case is not at hand."""

    class Planted:
        def __init__(self, spec: ImportedSpec) -> None:
            self.spec = spec

        def text(self, folder: Path) -> str:
            return plant(self.spec.text(folder))

    folder = case_folders()[case]

    def planted(path: Path) -> Planted:
        return Planted(import_checkpoint(path))

    monkeypatch.setattr(harness, "import_checkpoint", planted)
    return [c.what for c in harness.check_case(Oracle(folder), target) if not c.good]


def is_of_the_first_run(what: str) -> bool:
    """Whether a comparison is of a decoder's prefill or of an encoder, so that nothing earlier can explain it."""
    return "prefill logits" in what or "onnxruntime" in what
