"""`flowc report`: a spec or a build as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from flowc.cli.telling import tell
from flowc.outside.writing import claim, holds, write_whole


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The page.  [MODEL.report.html]")
@click.option("--verify", type=click.Choice(["quick", "off"]), default="quick", help="Check a build anew.  [quick]")
@click.option("--sequence", type=click.IntRange(min=1), default=128, help="New tokens of a prefill.  [128]")
@click.option("--past", type=click.IntRange(min=0), default=128, help="Cached tokens of a decode step.  [128]")
def report(model: Path, output: Path | None, verify: str, sequence: int, past: int) -> None:
    r"""Write one HTML page: the flow as a drawing, stages with their costs, passes, checks, inputs and outputs.

    \b
    flowc report out/model.onnx
    flowc report model.yaml -o report.html

    The page needs no network, no server and no script.
    """
    from flowc.report.facts import facts
    from flowc.report.page import render
    from flowc.report.subject import files_behind, named

    path = output or _beside(model)
    claim(path, [model, *(files_behind(model) if model.exists() else ())], holds(b"flowc report</title>"))
    subject = named(model)
    sizes = {"batch": 1, "sequence": sequence, "past": past}
    page = render(subject, facts(subject, sizes, placement=False), _checks(subject) if verify == "quick" else [])
    write_whole(path, page)
    tell(path)


def _beside(model: Path) -> Path:
    """The page's own place: beside the model; in a folder that is named by dots alone, such as `.`."""
    if model.name in ("", ".."):
        return model / f"{model.resolve().name}.report.html"
    return model.with_name(f"{model.name.split('.')[0]}.report.html")


def _checks(subject: Any) -> list[dict[str, Any]]:
    from flowc.errors import CheckFailed
    from flowc.verify.quick import check

    if subject.manifest is None or subject.compiled.checkpoint is None:
        return []
    try:
        return check(subject.manifest.path, subject.compiled)
    except CheckFailed as failed:
        return [{"name": d.code, "passed": False, "message": d.message} for d in failed.diagnostics]
