"""Which planted faults the short run plants: another part of them for every state of the compiler's sources.

    sample(FAULTS, sources())     a ninth of the faults; the same one as long as no source changes

Over some commits each fault has its turn; `make check-full` plants all of them each time.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TypeVar

from tests.oracle_io import ROOT

PARTS = 9
"""In how many parts the faults fall; seven or so are what a short run has time for."""

Item = TypeVar("Item")


def sources() -> int:
    """A number that every change of the compiler changes: the digest of its modules, by name and content."""
    digest = hashlib.sha256()
    for folder in ("flowc", "lowering", "passes"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            digest.update(f"{path.relative_to(ROOT)}\n".encode() + path.read_bytes())
    return int.from_bytes(digest.digest()[:8])


def sample(faults: Sequence[Item], number: int) -> list[Item]:
    """The part of the faults whose turn it is; neighbours in the list, which are alike, fall into different parts."""
    return list(faults[number % PARTS :: PARTS])
