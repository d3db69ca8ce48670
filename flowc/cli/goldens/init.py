"""`flowc golden init`: a first case for a spec or a checkpoint."""

from __future__ import annotations

from pathlib import Path

import click

from flowc.cli.goldens.cases import PATH
from flowc.cli.sparing import numpy_without_threads
from flowc.cli.telling import tell
from flowc.outside.writing import claim, write_whole


@click.command()
@click.argument("model", metavar="MODEL.yaml|CHECKPOINT", type=PATH)
@click.option("-o", "--output", metavar="CASE.yaml", required=True, type=PATH, help="Where to write the case.")
@click.option("--text", "texts", multiple=True, help="A prompt of a decoder, for its tokenizer; repeatable.")
@click.option("--steps", type=click.IntRange(min=1, max=4096), default=8, help="Tokens that it goes on.  [8]")
def init(model: Path, output: Path, texts: tuple[str, ...], steps: int) -> None:
    r"""Write a first case for a spec, or for a checkpoint (a folder or a GGUF file) that importers read.

    \b
    flowc golden init model.yaml -o golden/model.yaml
    flowc golden init SmolLM2.gguf --text "What is the capital of France?" -o golden/smollm2.yaml

    Without --text a decoder is asked with token ids. The case is a file for people to change, never written over.
    """
    numpy_without_threads()
    from flowc.build.compiled import Request
    from flowc.compile import compile_spec
    from flowc.golden.new_case import new_case
    from flowc.importers import import_checkpoint
    from flowc.report.subject import is_spec
    from flowc.spec.load import build, load
    from flowc.text.source import parse

    claim(output, [model], lambda stream: False)
    if is_spec(model):
        spec = load(model)
    else:
        spec = build(parse(import_checkpoint(model).text(output.parent), str(model)), output)
    compiled = compile_spec(spec, Request(), need_weights=False)
    key = "spec" if is_spec(model) else "checkpoint"
    write_whole(output, new_case(compiled, key, model, output, texts, steps))
    tell(output)
    tell(f"next: flowc golden record {output}", err=True)
