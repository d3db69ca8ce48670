"""What was checked of a build for its report, and what came of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from flowc.errors import CheckFailed, Diagnostic, FlowError
from flowc.report.subject import Named

Depth = Literal["quick", "full", "off"]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Verdict:
    """The checks, as plain values, and the sentence that stands over them."""

    text: str
    mark: str = "soft"
    checks: tuple[dict[str, Any], ...] = ()
    diagnostics: tuple[Diagnostic, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether something that was checked does not hold."""
        return self.mark == "bad"


def verdict_of(subject: Named, depth: Depth, progress: Progress | None = None) -> Verdict:
    """Check a build as `flowc build` (quick) or `flowc verify` (full) does; of a spec, there is nothing to check."""
    if subject.manifest is None:
        return Verdict("This is a spec: nothing was built, so nothing was checked.")
    if depth == "off":
        return Verdict("Nothing was checked for this page (--verify off).")
    try:
        checks = _checked(subject, depth, progress)
    except CheckFailed as error:
        failed = [{"name": d.code, "passed": False, "detail": d.message} for d in error.diagnostics]
        return Verdict(
            f"The {depth} check of this build, made for this page, FAILED.", "bad", (*failed,), error.diagnostics
        )
    found = checks.as_json()
    error: CheckFailed | None = checks.error()
    against = (
        ""
        if subject.compiled.checkpoint is not None
        else ("; the original weights were not at hand, so the data file was not compared with them (--weights)")
    )
    if error is not None:
        text = f"The {depth} check of this build, made for this page, FAILED{against}."
        return Verdict(text, "bad", (*found,), error.diagnostics)
    return Verdict(f"The {depth} check of this build, made for this page, passed{against}.", "good", (*found,))


def _checked(subject: Named, depth: Depth, progress: Progress | None) -> Any:
    from flowc.verify import quick
    from flowc.verify.rebuild import subject_of

    assert subject.manifest is not None
    if depth == "full":
        from flowc.verify import full

        return full.verify(subject.manifest, subject.compiled, progress=progress)
    try:
        for phase in subject.manifest.graphs:  # the data file too, whole
            subject.manifest.graph_path(phase)
        model = subject_of(subject.manifest, subject.compiled)
    except FlowError as error:
        raise CheckFailed(error.diagnostics) from None
    return quick.checked(subject.manifest.path, subject.compiled, progress, model)
