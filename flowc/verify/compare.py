"""How far two arrays are apart, and how far they may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True)
class Deviation:
    """The worst place of a comparison. `error` is absolute, inf where a number is not finite or shapes differ."""

    name: str
    error: float
    allowed: float
    note: str = ""

    @property
    def ratio(self) -> float:
        """Error as a share of what is allowed; a sound value is at most 1."""
        if self.error == 0:
            return 0.0
        return self.error / self.allowed if self.allowed else float("inf")

    @property
    def good(self) -> bool:
        """Whether the error is allowed."""
        return self.ratio <= 1.0

    def __str__(self) -> str:
        text = f"{self.name}: error {self.error:.2g}, allowed {self.allowed:.2g}"
        return f"{text} ({self.note})" if self.note else text


def compare(name: str, found: Array, expected: Array, where: Array, allowed: Array) -> Deviation:
    """Compare two arrays where `where` (bool, broadcastable) is True; integers and booleans must be equal.

    `allowed` is the error that each number may have, broadcastable to them (see `rounding.py`).
    """
    if found.shape != expected.shape:
        return Deviation(name, float("inf"), 0.0, f"shape {list(found.shape)}, expected {list(expected.shape)}")
    where = np.broadcast_to(where, found.shape)
    if expected.dtype.kind in "biu":
        wrong = int(np.count_nonzero((found != expected) & where))
        return Deviation(name, float(wrong), 0.0, f"{wrong} of {int(where.sum())} differ" if wrong else "")
    bad = ~np.isfinite(found) & where
    if bad.any():
        index = _index(bad)
        return Deviation(name, float("inf"), 0.0, f"{found[index]} at {_text(index)}")
    if not np.isfinite(expected[where]).all():
        return Deviation(name, float("inf"), 0.0, "the reference is not finite")
    error = np.abs(np.where(where, found.astype(np.float64) - expected, 0.0))
    if not error.any():
        return Deviation(name, 0.0, float(np.max(allowed, initial=0.0)))
    allowed = np.broadcast_to(allowed, error.shape)
    ratio = np.divide(error, allowed, out=np.where(error > 0, np.inf, 0.0), where=allowed > 0)
    index = _index(ratio == ratio.max())
    worst = Deviation(name, float(error[index]), float(allowed[index]))
    return worst if worst.good else Deviation(name, worst.error, worst.allowed, f"worst at {_text(index)}")


def _index(where: Array) -> tuple[int, ...]:
    """The first place where something holds."""
    return tuple(int(i[0]) for i in np.nonzero(where))


def _text(index: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, index))}]"
