"""`flowc diff`: what differs between two specs or builds."""

from __future__ import annotations

import json
from pathlib import Path

import click

from flowc.cli.progress import progress
from flowc.cli.sparing import numpy_without_threads


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
    flowc diff out/old/model.onnx out/new/model.onnx

    Names of nodes, places in the spec and the order of independent operators do not matter.
    """
    numpy_without_threads()
    from flowc.report.difference import LEVELS, differences
    from flowc.report.subject import named

    with progress() as shown:
        found = differences(named(a), named(b), numbers=not no_numbers, progress=shown)
    if as_json:
        click.echo(json.dumps({"same": not found, "differences": [d.as_json() for d in found]}, ensure_ascii=False))
    else:
        for level in LEVELS:
            here = [d for d in found if d.level == level]
            click.echo(f"{level}: {'the same' if not here else f'{len(here)} differences'}")
            for one in here[:most]:
                click.echo(f"  {one.at}\n    - {one.a}\n    + {one.b}")
            if len(here) > most:
                click.echo(f"  and {len(here) - most} more")
    if found:
        context.exit(1)
