"""`flowc diff`: what differs between two specs or builds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flowc.cli.progress import progress
from flowc.cli.sparing import numpy_without_threads
from flowc.cli.telling import tell

if TYPE_CHECKING:
    from flowc.report.apart import Comparison


@click.command()
@click.argument("a", type=click.Path(path_type=Path))
@click.argument("b", type=click.Path(path_type=Path))
@click.option("--no-numbers", is_flag=True, help="Do not run builds to compare their numbers.")
@click.option("--most", type=click.IntRange(min=1), default=20, help="Lines shown per level.  [20]")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.pass_context
def diff(context: click.Context, a: Path, b: Path, no_numbers: bool, most: int, as_json: bool) -> None:
    r"""Compare two models: specs, graphs by stage, weights by hash, then numbers. Exit code 1 when they differ.

    \b
    flowc diff old.yaml new.yaml
    flowc diff HEAD~1:./model.yaml model.yaml
    flowc diff out/old/model.onnx out/new/model.onnx

    Names of nodes, places in the spec and the order of independent operators do not matter. What cannot be compared is
    `not compared`, with the reason; exit code 1 too when that leaves open whether the models are the same.

    REVISION:PATH is a spec as git has it, named as git does: from the repository's top, or with ./ from here. Weights
    that it names relatively are those of the working tree.
    """
    numpy_without_threads()
    from flowc.report.difference import compare
    from flowc.report.subject import named

    with progress() as shown:
        found = compare(named(a), named(b), numbers=not no_numbers, progress=shown)
    if as_json:
        click.echo(json.dumps(found.as_json(), ensure_ascii=False))
    else:
        _tell(found, most)
    if not found.same:
        context.exit(1)


def _tell(found: Comparison, most: int) -> None:
    from flowc.report.apart import LEVELS

    for level in LEVELS:
        here = [d for d in found.differences if d.level == level]
        gaps = [gap for gap in found.not_compared if gap.level == level]
        counted = [f"{len(here)} difference{'s' if len(here) > 1 else ''}"] if here else []
        tell(f"{level}: {', '.join([*counted, *(['not compared'] if gaps else [])]) or 'the same'}")
        for one in here[:most]:
            for line in (f"  {one.at}", f"    - {one.a}", f"    + {one.b}"):
                tell(line)
        if len(here) > most:
            tell(f"  and {len(here) - most} more")
        for gap in gaps[:most]:
            tell(f"  {gap.at}: {gap.reason}")
        if len(gaps) > most:
            tell(f"  and {len(gaps) - most} more that were not compared")
    if found.same is None:
        tell("nothing differs of what was compared; whether the models are the same is open", err=True)
