"""Is what a model gives still what was recorded?

    MATCH       the same numbers, bit by bit
    TIE         another best token, but one within the recorded margin of a tie
    DRIFT       other bytes, inside the tolerance
    DIVERGED    anything else
    ERROR       the case could not be played
    SKIPPED     its weights are not on this machine

Every step is judged on its own, with the recorded tokens fed: one tie does not poison the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from flowc.errors import Diagnostic
from flowc.golden.case import Case
from flowc.golden.numbers import array
from flowc.golden.play import Recording
from flowc.text.changes import changes, value_text

Verdict = Literal["MATCH", "TIE", "DRIFT", "DIVERGED", "ERROR", "SKIPPED"]
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
    spec_changes: list[str] = field(default_factory=list[str])
    """What the spec says otherwise than when it was recorded."""
    problems: tuple[Diagnostic, ...] = ()
    """Why the case could not be played."""
    exit_code: int = 0
    """That of the problems."""
    skipped: str = ""
    """Why the case was not tried."""
    seconds: float = 0.0

    @property
    def verdict(self) -> Verdict:
        """The worst of all."""
        if self.problems or self.skipped:
            return "ERROR" if self.problems else "SKIPPED"
        worst: Verdict = "MATCH"
        for judged in self.judged:
            if ORDER.index(judged.verdict) > ORDER.index(worst):
                worst = judged.verdict
        return worst

    def fails(self, *, strict: bool) -> bool:
        """Whether a check has to fail."""
        if strict and (self.spec_changes or self.verdict in ("TIE", "DRIFT")):
            return True
        return self.verdict in ("DIVERGED", "ERROR")

    def as_json(self) -> dict[str, object]:
        """Plain values."""
        return {
            "name": self.name,
            "verdict": self.verdict,
            "seconds": round(self.seconds, 3),
            "steps": [j.as_json() for j in self.judged],
            "spec_changes": self.spec_changes,
            "diagnostics": [d.as_json() for d in self.problems],
            **({"skipped": self.skipped} if self.skipped else {}),
        }


def judge(case: Case, recorded: Mapping[str, Any], played: Recording) -> Report:
    """Compare what a model gave with what was recorded."""
    report = Report(case.name, spec_changes=spec_changes(recorded, played))
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


def spec_changes(recorded: Mapping[str, Any], played: Mapping[str, Any]) -> list[str]:
    """What the spec and the target say otherwise than when a case was recorded, a line for each."""
    known = changes(recorded["spec"], played.get("spec") or {}) if recorded.get("spec") else ()
    lines = [f"{c.at} is {value_text(c.b)}, was {value_text(c.a)}" for c in known]
    if not lines and recorded.get("spec_sha256") not in (None, played.get("spec_sha256")):
        lines = [f"its sha256 is {str(played.get('spec_sha256'))[:16]}…, was {str(recorded['spec_sha256'])[:16]}…"]
    if recorded.get("target") not in (None, played.get("target")):
        lines.append(f"the target is {played.get('target')}, was {recorded['target']}")
    return lines


def _judge_step(case: Case, what: str, was: Mapping[str, Any], now: Mapping[str, Any]) -> Judged:
    if was["digest"] == now["digest"] and was["top"] == now["top"]:
        return Judged(what, "MATCH", 0.0)
    shared = [i for i in was["top"] if i in now["top"]]
    a, b = array(was["top"][i] for i in shared), array(now["top"][i] for i in shared)
    error = float(np.abs(a - b).max()) if shared and np.isfinite(b).all() else float("inf")
    # A token that is only in one of the lists has changed by as much as it fell below the other's last one.
    for mine, theirs in ((was["top"], now["top"]), (now["top"], was["top"])):
        floor = min(theirs.values())
        over = [v - floor for i, v in mine.items() if i not in theirs]
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
    return float("inf") if other is None else float(was["top"][str(was["token"])] - other)


def _judge_output(case: Case, name: str, was: Mapping[str, Any], now: Mapping[str, Any] | None) -> Judged:
    if now is None:
        return Judged(name, "DIVERGED", float("inf"), "the model no longer gives it")
    if was["digest"] == now["digest"]:
        return Judged(name, "MATCH", 0.0)
    error, allowed = _distance(case, was, now)
    return Judged(name, "DRIFT" if error <= allowed else "DIVERGED", error, f"allowed {allowed:.2g}")


def _distance(case: Case, was: Mapping[str, Any], now: Mapping[str, Any]) -> tuple[float, float]:
    """How far two sets of statistics are apart, and how far they may be."""
    a = array([was["rms"], was["max"], *was["projections"]])
    b = array([now["rms"], now["max"], *now["projections"]])
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
