"""What a spec expects of the passes: that each one named fires as often as it says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from flowc.errors import CheckFailed, Diagnostics, nearest
from flowc.passes import pipeline
from flowc.passes.audit import Audit
from flowc.spec.spec import Expectation


def check_expectations(expected: Sequence[Expectation], audits: Mapping[str, Mapping[str, Audit]]) -> None:
    """Hold the audits (by phase, then by pass) to what is expected; for `all`, a pass must have missed no place.

    Raises:
        CheckFailed: a pass fired less, more, or missed a place.
        SpecError: there is no such pass.
    """
    problems, known = Diagnostics(), [step.__name__ for step in pipeline.PIPELINE]
    for entry in expected:
        name = pipeline.current_name(entry.pass_name)
        if name not in known:
            hint = nearest(name, known) or f"passes: {', '.join(known)}"
            problems.error("unknown-pass", f"there is no pass '{name}'", entry.name_span, hint)
            continue
        by_phase = {phase: by_pass[name] for phase, by_pass in audits.items() if name in by_pass}
        if not _met(entry.wanted, list(by_phase.values())):
            missed = [(f"in {phase}, {where}: {why}", None) for phase, a in by_phase.items() for where, why in a.missed]
            wanted = entry.wanted if entry.wanted == "all" else f"{entry.wanted} times"
            counts = ", ".join(f"{len(audit.fired)} times in {phase}" for phase, audit in by_phase.items())
            message = f"pass '{name}' was expected to fire {wanted}"
            message += f"; it fired {counts}" if by_phase else ", but it was left out (--no-pass)"
            notes = tuple(missed[:5])
            problems.error("missed-expectation", message, entry.span, notes=notes, kind=CheckFailed)
    problems.raise_if_any()


def _met(wanted: str | int, audits: Sequence[Audit]) -> bool:
    if wanted == "all":
        return any(a.fired for a in audits) and not any(a.missed for a in audits)
    # As `flowc explain` counts: a place that several graphs have in common counts once.
    return bool(audits) and len({place for a in audits for place in a.fired}) == wanted
