"""How far two arrays are apart, and how far they may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

OUTPUT_TOLERANCE = 2e-5
"""Allowed error of a graph's float32 outputs, as a share of the largest number of their row (last axis)."""

OPERATOR_TOLERANCE = 1e-5
"""The same for one operator, fed with the very numbers of the other side."""

DEEP = 200
"""Operators of a graph from which on the allowed error of its outputs grows, with the root of their number."""

NARROW = 16
"""Rows of fewer numbers say nothing about their scale; there it is that of the whole array."""

OUTPUT_FLOOR = 1.0
"""What a row of an output counts for at least: errors travel, and small numbers inherit those of large ones."""

OPERATOR_FLOOR = 1e-3
"""The same for one operator, as a share of its largest result."""


AMPLIFIED = 10.0
"""How much more a graph with a delta rule is allowed: the norm behind it enlarges the rounding of results near zero."""


def tolerance_of(operators: int, *, amplified: bool = False) -> float:
    """Allowed error of the outputs of a graph with that many operators."""
    return OUTPUT_TOLERANCE * max(1.0, (operators / DEEP) ** 0.5) * (AMPLIFIED if amplified else 1.0)


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


def compare(
    name: str, found: Array, expected: Array, where: Array, tolerance: float, *, operator: bool = False
) -> Deviation:
    """Compare two arrays where `where` (bool, broadcastable) is True; integers and booleans must be equal.

    `operator`: both sides come from the same operands, so that nothing but one operator's own rounding is allowed.
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
    wanted = np.where(where, expected.astype(np.float64), 0.0)
    error = np.abs(np.where(where, found.astype(np.float64), 0.0) - wanted)
    wide = wanted.ndim > 0 and wanted.shape[-1] >= NARROW
    rows = np.abs(wanted).max(axis=-1 if wide else None, keepdims=True, initial=0.0)
    floor = OPERATOR_FLOOR * float(rows.max(initial=0.0)) if operator else OUTPUT_FLOOR
    allowed = np.broadcast_to(tolerance * np.maximum(rows, floor), error.shape)
    if not error.any():
        return Deviation(name, 0.0, float(allowed.max(initial=tolerance)))
    ratio = np.divide(error, allowed, out=np.where(error > 0, np.inf, 0.0), where=allowed > 0)
    index = _index(ratio == ratio.max())
    worst = Deviation(name, float(error[index]), float(allowed[index]))
    return worst if worst.good else Deviation(name, worst.error, worst.allowed, f"worst at {_text(index)}")


def _index(where: Array) -> tuple[int, ...]:
    """The first place where something holds."""
    return tuple(int(i[0]) for i in np.nonzero(where))


def _text(index: tuple[int, ...]) -> str:
    return f"[{', '.join(map(str, index))}]"
