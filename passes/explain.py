"""What the passes did to a whole build, over all its graphs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flowc.passes.audit import Audit


@dataclass(frozen=True, slots=True)
class Miss:
    """A place where a pass could not fire, why, and in which graphs."""

    at: str
    reason: str
    graphs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PassReport:
    """What one pass did in all graphs. A place that several graphs have in common counts once."""

    name: str
    at: tuple[str, ...]
    misses: tuple[Miss, ...]

    @property
    def fired(self) -> int:
        """Number of places where the pass fired."""
        return len(self.at)

    @property
    def candidates(self) -> int:
        """Number of places where it fired or might have."""
        return len({*self.at, *(m.at for m in self.misses)})

    def as_json(self) -> dict[str, Any]:
        """The report as `flowc explain --json` prints it."""
        misses = [{"at": m.at, "reason": m.reason, "graphs": list(m.graphs)} for m in self.misses]
        counts = {"fired": self.fired, "candidates": self.candidates}
        return {"name": self.name, **counts, "at": list(self.at), "misses": misses}


def explain(audits: Mapping[Any, Mapping[str, Audit]]) -> list[PassReport]:
    """Merge the audits of all graphs (by phase, then by pass), in the order of the pipeline."""
    reports: list[PassReport] = []
    for name in dict.fromkeys(n for by_pass in audits.values() for n in by_pass):
        fired: dict[str, None] = {}
        missed: dict[tuple[str, str], list[str]] = {}
        for phase, by_pass in audits.items():
            audit = by_pass.get(name, Audit())
            fired.update(dict.fromkeys(audit.fired))
            for miss in audit.missed:
                missed.setdefault(miss, []).append(str(phase))
        misses = tuple(Miss(at, why, tuple(dict.fromkeys(graphs))) for (at, why), graphs in missed.items())
        reports.append(PassReport(name, tuple(fired), misses))
    return reports
