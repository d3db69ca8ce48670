"""Is what a model gives still what was recorded?

    MATCH       the same numbers, bit by bit
    TIE         another best token, but one within the recorded margin of a tie
    DRIFT       other bytes, inside the tolerance
    DIVERGED    anything else

Every step is judged on its own, with the recorded tokens fed: one tie does not poison the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from flowc.golden.case import Case
from flowc.golden.play import Recording, numbers

Verdict = Literal["MATCH", "TIE", "DRIFT", "DIVERGED"]
ORDER: tuple[Verdict, ...] = ("MATCH", "TIE", "DRIFT", "DIVERGED")


@dataclass(frozen=True, slots=True)
class Judged:
    """One step of a prompt, or one output."""

    what: str
    verdict: Verdict
    error: float
    detail: str = ""

    def as_json(self) -> dict[str, object]:
        """Plain values."""
        error = self.error if np.isfinite(self.error) else "inf"
        return {"what": self.what, "verdict": self.verdict, "error": error, "detail": self.detail}


@dataclass(slots=True)
class Report:
    """A whole case."""

    name: str
    judged: list[Judged] = field(default_factory=list[Judged])

    @property
    def verdict(self) -> Verdict:
        """The worst of all."""
        worst: Verdict = "MATCH"
        for judged in self.judged:
            if ORDER.index(judged.verdict) > ORDER.index(worst):
                worst = judged.verdict
        return worst

    def fails(self, *, strict: bool) -> bool:
        """Whether a check has to fail."""
        return self.verdict == "DIVERGED" or (strict and self.verdict != "MATCH")

    def as_json(self) -> dict[str, object]:
        """Plain values."""
        return {"name": self.name, "verdict": self.verdict, "steps": [j.as_json() for j in self.judged]}


def judge(case: Case, recorded: Mapping[str, Any], played: Recording) -> Report:
    """Compare what a model gave with what was recorded."""
    report = Report(case.name)
    if case.prompts:
        for number, (was, now) in enumerate(zip(recorded["prompts"], played["prompts"], strict=True), start=1):
            first = _first_stage(case, was["stages"], now["stages"])
            for step, (a, b) in enumerate(zip(was["steps"], now["steps"], strict=True)):
                found = _judge_step(case, f"prompt {number} step {step}", a, b)
                report.judged.append(_placed(found, first if step == 0 else ""))
    else:
        first = _first_stage(case, recorded["stages"], played["stages"])
        for name, was in recorded["outputs"].items():
            now = played["outputs"].get(name)
            report.judged.append(_placed(_judge_output(case, name, was, now), first))
    return report


def _judge_step(case: Case, what: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> Judged:
    if was["digest"] == now["digest"] and was["top"] == now["top"]:
        return Judged(what, "MATCH", 0.0)
    shared = [i for i in was["top"] if i in now["top"]]
    a, b = numbers([was["top"][i] for i in shared]), numbers([now["top"][i] for i in shared])
    error = float(np.abs(a - b).max()) if shared and np.isfinite(b).all() else float("inf")
    # A token that is only in one of the lists has changed by as much as it fell below the other's last one.
    for mine, theirs in ((was["top"], now["top"]), (now["top"], was["top"])):
        floor = min(numbers(list(theirs.values())))
        over = [float.fromhex(v) - floor for i, v in mine.items() if i not in theirs]
        error = max([error, *over])
    allowed = case.absolute + 1e-5 * float(np.abs(a).max(initial=0.0))
    if was.get("all") and error <= allowed:
        whole, most = _distance(case, was["all"], now["all"])
        if whole > most:
            return Judged(what, "DIVERGED", whole, f"logits outside of the ten best moved, allowed {most:.2g}")
    if was["token"] == now["token"]:
        return Judged(what, "DRIFT" if error <= allowed else "DIVERGED", error, f"allowed {allowed:.2g}")
    gap = _gap(was, now)
    swap = f"token {now['token']} instead of {was['token']}, recorded {gap:.2g} apart"
    if gap <= case.tie and error <= max(allowed, case.tie):
        return Judged(what, "TIE", error, swap)
    return Judged(what, "DIVERGED", error, swap)


def _gap(was: Mapping[str, Any], now: Mapping[str, Any]) -> float:
    """How far the new best token was behind the old one when it was recorded."""
    other = was["top"].get(str(now["token"]))
    return float("inf") if other is None else float.fromhex(was["top"][str(was["token"])]) - float.fromhex(other)


def _judge_output(case: Case, name: str, was: Mapping[str, Any], now: Mapping[str, Any] | None) -> Judged:
    if now is None:
        return Judged(name, "DIVERGED", float("inf"), "the model no longer gives it")
    if was["digest"] == now["digest"]:
        return Judged(name, "MATCH", 0.0)
    error, allowed = _distance(case, was, now)
    return Judged(name, "DRIFT" if error <= allowed else "DIVERGED", error, f"allowed {allowed:.2g}")


def _distance(case: Case, was: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[float, float]:
    """How far two sets of statistics are apart, and how far they may be."""
    a = numbers([was["rms"], was["max"], *was["projections"]])
    b = numbers([now["rms"], now["max"], *now["projections"]])
    allowed = case.absolute * max(1.0, float(a[1]))
    if a.shape != b.shape or not np.isfinite(b).all():
        return float("inf"), allowed
    return float(np.abs(a - b).max()), allowed


def _first_stage(case: Case, was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first stage whose numbers moved beyond the tolerance."""
    for stage, before in was.items():
        after = now.get(stage)
        if after is not None:
            error, allowed = _distance(case, before, after)
            if error > allowed:
                return f"first stage that moved: {stage} (by {error:.2g})"
    return ""


def _placed(found: Judged, first: str) -> Judged:
    if found.verdict != "DIVERGED" or not first:
        return found
    return Judged(found.what, found.verdict, found.error, f"{found.detail}; {first}".lstrip("; "))
