"""`flowc report`: a spec or a build as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from flowc.cli.progress import progress
from flowc.cli.sparing import onnx_ir_without_sympy
from flowc.cli.telling import tell
from flowc.errors import FlowError
from flowc.outside.writing import claim, holds, write_whole


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The page.  [MODEL.report.html]")
@click.option(
    "--verify",
    type=click.Choice(["quick", "full", "off"]),
    default="quick",
    help="Check a build for the page, as `flowc build` or as `flowc verify` does.  [quick]",
)
@click.option("--weights", type=click.Path(path_type=Path), help="The original weights, for the checks.")
@click.option("--sequence", type=click.IntRange(min=1), default=128, help="New tokens of a prefill.  [128]")
@click.option("--past", type=click.IntRange(min=0), default=128, help="Cached tokens of a decode step.  [128]")
@click.pass_context
def report(
    context: click.Context, model: Path, output: Path | None, verify: Literal["quick", "full", "off"],
    weights: Path | None, sequence: int, past: int,
) -> None:  # fmt: skip
    r"""Write one HTML page: checks, the flow as a drawing, stages with their costs, passes, inputs and outputs.

    \b
    flowc report out/model.onnx
    flowc report model.yaml -o report.html

    A build is checked for the page, which says what came of it; exit code 1 when a check failed. The page needs no
    network and no server. Its drawing shows the data of the graph: every line is a value. A click or Enter on a box
    shows all about it; `/` searches.
    """
    from flowc.report.facts import facts
    from flowc.report.page import render
    from flowc.report.subject import files_behind, named
    from flowc.report.verdict import verdict_of

    path = output or _beside(model)
    claim(path, [model, *(files_behind(model) if model.exists() else ())], holds(b"flowc report</title>"))
    with progress("compiling") as shown:
        subject = named(model, weights)
        if subject.is_build and verify == "full":
            onnx_ir_without_sympy()
        verdict = verdict_of(subject, verify, shown)
        if shown is not None:
            shown("drawing", 0, 0)
        sizes = {"batch": 1, "sequence": sequence, "past": past}
        page = render(subject, facts(subject, sizes, placement=False), verdict)
    write_whole(path, page)
    tell(path)
    if verdict.failed:
        click.echo(FlowError(verdict.diagnostics).render(), err=True)
        context.exit(1)


def _beside(model: Path) -> Path:
    """The page's own place: beside the model; in a folder that is named by dots alone, such as `.`."""
    if model.name in ("", ".."):
        return model / f"{model.resolve().name}.report.html"
    return model.with_name(f"{model.name.split('.')[0]}.report.html")
