"""Builds a model with real-like weights and says what verify holds against it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flowc.build import manifest as manifests
from flowc.build.compiled import Compiled, Request
from flowc.compile import build
from flowc.errors import CheckFailed
from flowc.verify import full as full_verify
from flowc.verify import quick
from flowc.verify.checks import Checks
from flowc.verify.locate import sweep
from tests.realistic.models import Model


@dataclass(frozen=True, slots=True)
class Judged:
    """What is held against a build, and the largest share of an allowance that was used."""

    alarms: tuple[str, ...]
    largest: float


def judged(model: Model, seed: int, target: str, folder: Path, *, full: bool = False) -> Judged:
    """Build one model and check it."""
    compiled = model.compiled(folder, seed, Request(target=target))
    (folder / "out").mkdir()
    build(compiled, folder / "out" / "model.onnx", verify="off")
    return verdict_of(folder / "out", compiled, full=full)


def verdict_of(folder: Path, compiled: Compiled, *, full: bool) -> Judged:
    """What the checks of a build in a folder give."""
    manifest = manifests.load(folder)
    try:
        if full:
            checks = full_verify.verify(manifest, compiled)
        else:
            checks = quick.checked(manifest.path, compiled)
            for call in quick.calls(checks.subject, {}):
                if call.label == call.phase:
                    checks.operators(call, list(sweep(checks.subject, call)))
    except CheckFailed as error:
        return Judged((error.render(),), float("inf"))
    return Judged(tuple(c.detail for c in checks.failures), _largest(checks))


def _largest(checks: Checks) -> float:
    return max((c.worst.ratio for c in checks.done if c.worst is not None), default=0.0)
