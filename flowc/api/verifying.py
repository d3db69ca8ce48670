"""`flowc.verify`: is a built model what its spec means?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowc.api.specs import AnyPath

if TYPE_CHECKING:
    from flowc.api.building import Progress
    from flowc.build.manifest import Manifest
    from flowc.errors import CheckFailed
    from flowc.verify.checks import Checks

MEMORY = 2.0
"""GB that one comparison may take, beside the weights."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What came of the checks of a built model."""

    manifest: Manifest
    found: Checks
    """Every check, with its numbers."""
    culprit: str | None = None
    """What `bisect_passes` found: a pass, or what comes before or after all of them."""

    @property
    def passed(self) -> bool:
        """Whether every check held."""
        return not self.found.failures

    @property
    def error(self) -> CheckFailed | None:
        """What is wrong, the likely cause first: raise it, or show it. None when every check held."""
        return self.found.error()

    @property
    def checks(self) -> list[dict[str, Any]]:
        """Each check as plain values: `name`, `graph`, `passed`, and what was found."""
        return self.found.as_json()

    @property
    def reference(self) -> str:
        """Which weights the model was compared with."""
        checkpoint = self.found.subject.compiled.checkpoint
        return (
            checkpoint.describe() if checkpoint is not None else "the data file itself (give the original: --weights)"
        )

    def as_json(self) -> dict[str, Any]:
        """Plain values, as `flowc verify --json` shows them."""
        records = self.manifest.graphs
        facts: dict[str, Any] = {
            "files": [str(self.manifest.folder / record.file) for record in records.values()],
            "graphs": {phase: {"file": record.file, "sha256": record.sha256} for phase, record in records.items()},
            "checks": self.checks,
            "passed": self.passed,
            "reference": self.reference,
        }
        return facts if self.culprit is None else {**facts, "pass": self.culprit}


def verify(
    model: AnyPath,
    *,
    weights: AnyPath | None = None,
    against: AnyPath | None = None,
    tolerance: float | None = None,
    bisect_passes: bool = False,
    memory: float = MEMORY,
    progress: Progress | None = None,
) -> Verified:
    """Check a built model against what its spec means: files, numbers, caches, padding.

    Args:
        model: any graph, the manifest, or their folder.
        weights: the original weights, to check the data file too.
        against: a reference from outside: arrays in an .npz, or a HuggingFace folder.
        tolerance: allowed error of `against`, absolute; by default 1e-4.
        bisect_passes: name the pass that makes a wrong graph wrong, by building again.
        memory: GB that one comparison may take, beside the weights.
        progress: is told how far the checks are.

    Raises:
        SpecError: the path is no built model, or the reference does not fit it.
        WeightsError: the weights are missing or are not those of the build.
        CheckFailed: the model cannot be judged at all. What a check finds is told in the result.
    """
    from flowc.build import manifest as manifests
    from flowc.verify.bisect import bisect
    from flowc.verify.external_reference import check_against
    from flowc.verify.full import verify as check
    from flowc.verify.rebuild import recompile

    manifest = manifests.load(Path(model))
    compiled = recompile(manifest, None if weights is None else Path(weights))
    checks = check(manifest, compiled, int(memory * 1e9), progress)
    if against is not None:
        checks.told("comparing with the reference", 0, 0)
        check_against(checks, Path(against), tolerance)
    culprit = None
    if bisect_passes and checks.failures:
        checks.told("building with fewer passes", 0, 0)
        culprit = bisect(checks)
    return Verified(manifest, checks, culprit)
