"""`flowc lock`: what a build is, written down for later builds to be held to."""

from __future__ import annotations

import json
from pathlib import Path

import click

from flowc.cli.telling import tell
from flowc.outside.writing import claim, holds, write_whole


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", metavar="FILE", type=click.Path(path_type=Path), help="Where to write.  [./NAME.flowc.lock.json]"
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def lock(model: Path, output: Path | None, as_json: bool) -> None:
    r"""Write the lock of a built model: spec, options, versions, and the hash of every file.

    \b
    flowc lock out/model.onnx
    flowc build model.yaml -o out/model.onnx --locked model.flowc.lock.json

    A lock belongs into the repository of the spec. A build that is held to it (--locked) is the same, byte by byte, or
    is refused with everything that differs; exit code 1.
    """
    from flowc.build import manifest as manifests
    from flowc.build.lock import MARK, SUFFIX, VERSION, lock_of, lock_text

    manifest = manifests.load(model)
    path = output or Path(manifest.path.name.removesuffix(manifests.SUFFIX) + SUFFIX)
    if not path.name.endswith(SUFFIX):
        raise click.UsageError(f"a lock is named *{SUFFIX}, not '{path.name}'")
    claim(path, manifest.files, holds(f'"{MARK}": {VERSION}'.encode()))
    write_whole(path, lock_text(lock_of(manifest)))
    if as_json:
        click.echo(json.dumps({"files": [str(path)]}))
    else:
        tell(path)
