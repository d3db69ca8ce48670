"""`flowc explain`: what each pass did to a spec's graphs, where, and why not elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from flowc.cli.compiling import compile_options
from flowc.cli.sparing import numpy_without_threads
from flowc.cli.telling import tell

_TOLD = ("operators", "macs", "bytes_read")


@click.command()
@compile_options
@click.option("--sequence", type=click.IntRange(min=1), default=128, help="New tokens, for the totals.  [128]")
@click.option("--past", type=click.IntRange(min=0), default=128, help="Cached tokens, for the totals.  [128]")
def explain(spec: Path, as_json: bool, sequence: int, past: int, **options: Any) -> None:
    r"""Show what each pass is and did: where it fired, at n of m places, what that saves, and why not at the others.

    \b
    flowc explain model.yaml
    flowc explain model.yaml --no-pass fold_rope --json
    """
    numpy_without_threads()
    from flowc.api.specs import compiled as compile_any
    from flowc.api.specs import request_of
    from flowc.passes.explain import explain as merge
    from flowc.passes.pipeline import pass_summaries
    from flowc.report.facts import Steps, facts
    from flowc.report.subject import Named

    steps = Steps()
    compiled = compile_any(spec, request_of(**options), steps, need_weights=False)
    reports, does = merge(compiled.audits), pass_summaries()
    sizes = {"batch": 1, "sequence": sequence, "past": past}
    changes = steps.changes(sizes)
    graphs = facts(Named(spec, compiled, None), sizes)["graphs"]
    totals = {p: {"before": g["before"], "after": g["after"]} for p, g in graphs.items()}
    if as_json:
        passes = [{**r.as_json(), "does": does[r.name], "changes": changes.get(r.name, {})} for r in reports]
        shown = {"passes": passes, "sizes": sizes, "graphs": totals}
        click.echo(json.dumps(shown, ensure_ascii=False))
        return
    for report in reports:
        tell(f"{report.name}: fired at {report.fired} of {report.candidates}")
        tell(f"  {does[report.name]}")
        for line in _places(report.at):
            tell(f"  at {line}")
        for phase, change in changes.get(report.name, {}).items():
            told = ", ".join(f"{k} {change[k]:+,}" for k in _TOLD if change[k])
            if told:
                tell(f"  {phase}: {told}")
        reasons: dict[str, list[str]] = {}
        for miss in report.misses:
            reasons.setdefault(f"{miss.reason} ({', '.join(miss.graphs)})", []).append(miss.at)
        for reason, places in reasons.items():
            tell(f"  not at {len(places)}: {reason}")
            for line in _places(tuple(places)):
                tell(f"    {line}")
    for phase, total in totals.items():
        before, after = total["before"], total["after"]
        told = ", ".join(f"{k} {before[k]:,} -> {after[k]:,}" for k in _TOLD)
        tell(f"{phase} (sequence {sequence}, past {past}): {told}")


def _places(places: tuple[str, ...], most: int = 6) -> list[str]:
    more = [f"and {len(places) - most} more"] if len(places) > most else []
    return [*places[:most], *more]
