"""`flowc doctor`: what this machine has, and what flowc can do with it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import click

from flowc.cli.sparing import numpy_without_threads
from flowc.errors import Diagnostic, MissingTool


@click.command()
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def doctor(as_json: bool) -> None:
    """Show versions, execution providers, and whether this machine can build and run each target.

    Exit code 4 when something that flowc needs is missing.
    """
    numpy_without_threads()
    from flowc.report.doctor import examine

    findings = examine(Path.cwd())
    bad = [f for f in findings if not f.good]
    if as_json:
        click.echo(json.dumps({"good": not bad, "findings": [asdict(f) for f in findings]}, ensure_ascii=False))
    else:
        for finding in findings:
            click.echo(f"{'ok  ' if finding.good else 'MISS'} {finding.name}: {finding.found}")
    if bad:
        raise MissingTool(Diagnostic("missing-tool", f"{f.name}: {f.found}", hint=f.hint) for f in bad)
