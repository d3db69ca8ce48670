"""`flowc import`: a spec from a checkpoint."""

from __future__ import annotations

import json
from pathlib import Path

import click

from flowc.cli.progress import progress
from flowc.cli.sparing import numpy_without_threads
from flowc.cli.telling import tell
from flowc.errors import Diagnostic, FlowError, SpecError
from flowc.outside.writing import claim, write_whole


@click.command(name="import")
@click.argument("source", metavar="HF_DIR|FILE.gguf", type=click.Path(path_type=Path))
@click.option("-o", "--output", metavar="MODEL.yaml", type=click.Path(path_type=Path), help="Where to write.  [stdout]")
@click.option(
    "--pool", metavar="LIST", default="", help="Pooled outputs of a text encoder: mean,mean_l2,cls,max,last ..."
)
@click.option("--force", is_flag=True, help="Overwrite a file that is no flowc spec.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def import_(source: Path, output: Path | None, pool: str, force: bool, as_json: bool) -> None:
    r"""Write a spec from a HuggingFace folder or a GGUF file.

    \b
    flowc import SmolLM2-135M-Instruct.Q4_1.gguf -o model.yaml
    flowc import ~/models/Llama-3.2-1B -o llama.yaml
    flowc import ~/models/bge-small-en --pool cls_l2 -o bge.yaml

    The folder holds config.json beside safetensors. A field that could change the numbers and is not known is refused
    by name; the spec states every number. A sentence-transformers folder brings its pooler along.
    """
    numpy_without_threads()
    from flowc.importers import import_checkpoint

    if output is None and as_json:
        raise click.UsageError("--json needs -o: without it the spec itself goes to stdout")
    if output is not None:
        claim(output, _read_by(source))
        if not force:
            _refuse_foreign(output)
    folder = Path.cwd() if output is None else output.absolute().parent
    with progress("importing"):
        imported = import_checkpoint(source, [p.strip() for p in pool.split(",") if p.strip()])
        text = imported.text(folder)
        _check(text, folder / "imported.yaml" if output is None else output.absolute(), imported.weights)
    for note in imported.notes:
        click.echo(f"note: {note}", err=True)
    if output is None:
        click.echo(text, nl=False)
        return
    write_whole(output, text)
    if as_json:
        facts = {"files": [str(output)], "name": imported.name, "model_type": imported.model_type}
        click.echo(json.dumps(facts, ensure_ascii=False))
    else:
        tell(output)


def _read_by(source: Path) -> list[Path]:
    """What an import reads, or might: the folder's files and those one folder below."""
    if source.is_dir():
        return [source, *source.glob("*"), *source.glob("*/*")]
    return [source, source.with_name("config.json")]


def _check(text: str, path: Path, weights: Path) -> None:
    """Raise what `flowc check` would say of a spec before it is written: nobody wrote it who could mend it."""
    from flowc.build.compiled import Request
    from flowc.compile import compile_spec
    from flowc.spec.load import build
    from flowc.text.source import parse

    try:
        compile_spec(build(parse(text, str(path)), path), Request(weights))
    except FlowError as error:
        if all(d.code in _MENDED_BY_OPTIONS for d in error.diagnostics):
            return
        message = f"'{weights}' does not fit the model that its configuration says"
        whys = [Diagnostic(d.code, f"{message}: {d.message}", None, d.hint) for d in error.diagnostics[:_SHOWN]]
        raise type(error)(whys) from None


_SHOWN = 5
_MENDED_BY_OPTIONS = ("dynamic-rope",)
"""What a build with options (--context) makes of the same spec."""


def _refuse_foreign(path: Path) -> None:
    """Raise SpecError when the path holds something that `flowc import` could not have written."""
    from flowc.text.source import MapNode, read_spec

    if not path.exists():
        return
    try:
        found = read_spec(path)
    except FlowError:
        found = None
    if not isinstance(found, MapNode) or found.get("flowc") is None:
        raise SpecError.of(
            "foreign-file", f"'{path}' exists and is no flowc spec", hint="--force overwrites it, -o names another file"
        )
