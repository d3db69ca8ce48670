"""What counts as a match, a tie, a drift, and a divergence."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowc.golden.case import Case, Prompt
from flowc.golden.play import Recording
from flowc.golden.verdict import judge

CASE = Case(
    path=Path("case.yaml"), name="case", checkpoint=None, spec=None, weights_sha256=None, target="ort-cpu",
    prompts=(Prompt((1,), None, 1),), inputs=None, absolute=1e-4, tie=1e-3,
)  # fmt: skip


def step(*logits: float) -> Recording:
    """A step whose token i has the i-th logit."""
    order = sorted(range(len(logits)), key=lambda i: -logits[i])
    top = {str(i): float(logits[i]) for i in order}
    return {
        "token": order[0],
        "margin": logits[order[0]] - logits[order[1]],
        "top": top,
        "digest": repr(logits),
    }


def verdict_of(was: Recording, now: Recording, stages: tuple[Recording, Recording] = ({}, {})) -> tuple[str, str]:
    recorded: Recording = {"prompts": [{"steps": [was], "stages": stages[0]}]}
    played: Recording = {"prompts": [{"steps": [now], "stages": stages[1]}]}
    report = judge(CASE, recorded, played)
    return report.verdict, report.judged[0].detail


@pytest.mark.parametrize(("was", "now", "verdict"), [
    (step(1.0, 2.0), step(1.0, 2.0), "MATCH"),
    (step(1.0, 2.0), step(1.0, 2.00005), "DRIFT"),
    (step(1.0, 2.0), step(1.0, 2.0002), "DIVERGED"),
    (step(2.0, 2.0005), step(2.0005, 2.0), "TIE"),
    (step(2.0, 2.002), step(2.002, 2.0), "DIVERGED"),
    (step(2.0, 2.0005), step(2.5, 2.0), "DIVERGED"),  # a tie does not excuse another number
    (step(1.0, 2.0), step(1.0, float("nan")), "DIVERGED"),
    (step(1.0, 2.0), step(1.0, float("inf")), "DIVERGED"),
])  # fmt: skip
def test_verdicts(was: Recording, now: Recording, verdict: str) -> None:
    assert verdict_of(was, now)[0] == verdict


def test_a_token_that_comes_into_the_list_counts() -> None:
    was, now = step(3.0, 2.0, 1.0), step(3.0, 2.0, 1.0)
    now["top"] = {"0": 3.0, "1": 2.0, "7": 1.5}
    now["digest"] = "other"
    assert verdict_of(was, now)[0] == "DIVERGED"


def test_logits_outside_of_the_ten_best_count() -> None:
    def brief(value: float) -> Recording:
        return {"rms": value, "max": 3.0, "projections": [value]}

    was = {**step(1.0, 3.0), "all": brief(2.0)}
    near, far = ({**was, "digest": "other", "all": brief(value)} for value in (2.00001, 2.01))
    assert verdict_of(was, near)[0] == "DRIFT"
    verdict, detail = verdict_of(was, far)
    assert verdict == "DIVERGED"
    assert "outside of the ten best" in detail


def test_strict_fails_on_a_tie() -> None:
    recorded: Recording = {"prompts": [{"steps": [step(2.0, 2.0005)], "stages": {}}]}
    played: Recording = {"prompts": [{"steps": [step(2.0005, 2.0)], "stages": {}}]}
    report = judge(CASE, recorded, played)
    assert report.verdict == "TIE"
    assert not report.fails(strict=False)
    assert report.fails(strict=True)


def test_strict_fails_on_drift_only_when_asked() -> None:
    recorded: Recording = {"prompts": [{"steps": [step(1.0, 2.0)], "stages": {}}]}
    played: Recording = {"prompts": [{"steps": [step(1.0, 2.00005)], "stages": {}}]}
    report = judge(CASE, recorded, played)
    assert not report.fails(strict=False)
    assert report.fails(strict=True)


def test_the_first_stage_that_moved_is_named() -> None:
    def stage(value: float) -> Recording:
        return {"rms": value, "max": value, "projections": [value]}

    was = {"embed": stage(1.0), "layer.0": stage(2.0), "layer.1": stage(3.0)}
    now = {"embed": stage(1.0), "layer.0": stage(2.5), "layer.1": stage(9.0)}
    verdict, detail = verdict_of(step(1.0, 2.0), step(1.0, 4.0), (was, now))
    assert verdict == "DIVERGED"
    assert "first stage that moved: layer.0" in detail
