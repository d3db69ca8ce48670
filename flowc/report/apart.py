"""What a comparison says: this differs, and that could not be compared."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

LEVELS = ("spec", "graphs", "weights", "numbers")

Progress = Callable[[str, int, int], None]
"""What is being compared, how much of it was, and how much there is."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that differs: at which level, where, and what it is on either side."""

    level: str
    at: str
    a: str
    b: str

    def as_json(self) -> dict[str, object]:
        """The difference as plain values."""
        return {"level": self.level, "at": self.at, "a": self.a, "b": self.b}


@dataclass(frozen=True, slots=True)
class NotCompared:
    """What was not compared, and why; `leaves_open` when the rest does not tell either whether it is the same."""

    level: str
    at: str
    reason: str
    leaves_open: bool = True

    def as_json(self) -> dict[str, object]:
        """The gap as plain values."""
        return {"level": self.level, "at": self.at, "reason": self.reason, "leaves_open": self.leaves_open}


@dataclass(frozen=True, slots=True)
class Comparison:
    """All that differs between two models, and all that nobody has compared."""

    differences: Sequence[Difference]
    not_compared: Sequence[NotCompared]

    @property
    def same(self) -> bool | None:
        """Whether the models are the same; None when nothing differs and not enough was compared."""
        if self.differences:
            return False
        return None if any(gap.leaves_open for gap in self.not_compared) else True

    def as_json(self) -> dict[str, object]:
        """The comparison as plain values."""
        return {
            "same": self.same,
            "differences": [d.as_json() for d in self.differences],
            "not_compared": [gap.as_json() for gap in self.not_compared],
        }
