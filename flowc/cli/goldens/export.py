"""`flowc golden export`: cases as ONNX test data."""

from __future__ import annotations

import json
from pathlib import Path

import click

from flowc.cli.goldens.cases import PATH, WEIGHTS, built, cases_of
from flowc.cli.telling import tell


@click.command()
@click.argument("cases", metavar="CASE.yaml...", nargs=-1, required=True, type=PATH)
@click.option("-o", "--output", metavar="FOLDER", required=True, type=PATH, help="Where to write.")
@WEIGHTS
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def export(cases: tuple[Path, ...], output: Path, weights: Path | None, as_json: bool) -> None:
    """Write ONNX test data, which onnx's backend runner and onnx_test_runner replay."""
    from flowc.golden.export import claim_folders
    from flowc.golden.export import export as write
    from flowc.verify.rebuild import subject_of

    written: list[Path] = []
    loaded = cases_of(cases, weights)
    for case in loaded:
        claim_folders(case, output)
    for case in loaded:
        with built(case, weights) as (manifest, compiled):
            written += write(case, manifest, subject_of(manifest, compiled), output)
    if as_json:
        click.echo(json.dumps({"folders": [str(folder) for folder in written]}))
        return
    for folder in written:
        tell(folder)
