"""`flowc build`: from a spec and its weights to ONNX files."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from flowc.cli.compiling import compile_options
from flowc.cli.parameters import ByteSize
from flowc.cli.progress import progress, size
from flowc.cli.sparing import numpy_without_threads, onnx_ir_without_sympy
from flowc.cli.telling import tell

if TYPE_CHECKING:
    from flowc.api.building import Built


class _Build(click.Command):
    """A command whose `--dump-ir` takes a value only behind `=`: what follows may be the model."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, ["--dump-ir=" if arg == "--dump-ir" else arg for arg in args])


@click.command(cls=_Build)
@compile_options
@click.option(
    "-o", "--output", metavar="MODEL.onnx", required=True, type=click.Path(path_type=Path), help="Where to write."
)
@click.option("--in-place", is_flag=True, help="Use safetensors in the output folder where they lie.")
@click.option(
    "--verify", type=click.Choice(["quick", "full", "off"]), default="quick", help="Checks of the result.  [quick]"
)
@click.option(
    "--shard-size",
    "shard_bytes",
    type=ByteSize(),
    metavar="SIZE",
    help="Weights in files of at most SIZE (2GB, say).",
)
@click.option(
    "--locked",
    type=click.Path(path_type=Path),
    help="A lock, or the manifest of an earlier build: refuse any difference.",
)
@click.option("--force", is_flag=True, help="Build, though nothing has changed since the files were made.")
@click.option("--dump-ir", metavar="[=PASS]", help="Show the graphs at the end, or as they are after a pass.")
@click.option("--dump-dir", type=click.Path(path_type=Path), help="Write each change of the graphs as a file.")
def build(
    spec: Path,
    output: Path,
    in_place: bool,
    shard_bytes: int | None,
    verify: Literal["quick", "full", "off"],
    locked: Path | None,
    force: bool,
    dump_ir: str | None,
    dump_dir: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    r"""Compile a spec and its weights, check the result, and write it.

    \b
    flowc build model.yaml -o out/model.onnx
    flowc build model.yaml -o out/model.onnx --graph prefill,decode --target portable
    flowc build model.yaml -o out/model.onnx --context 4096 --verify full

    Prints every file of the model. A build that fails leaves no file behind; where the files are there, made of the
    same spec, options, weights and flowc, nothing is built.
    """
    if verify == "off":
        numpy_without_threads()
    from flowc.api.building import up_to_date, write
    from flowc.api.specs import compiled, request_of
    from flowc.cli.dumping import Dumps

    if dump_ir is not None and as_json:
        raise click.UsageError("--dump-ir and --json would both write to stdout; --dump-dir goes with --json")
    dumps = Dumps(dump_ir, dump_dir)
    request = replace(request_of(**options), in_place=in_place, shard_bytes=shard_bytes)
    model = compiled(spec, request, dumps.see)
    dumps.show()
    built = None if force else up_to_date(model, output, verify=verify, locked=locked)
    if built is None:
        onnx_ir_without_sympy()
        with progress("lowering") as shown:
            built = write(model, output, verify=verify, locked=locked, progress=shown)
    _tell(built, output, as_json)


def _caches(built: Built) -> str:
    """How the graphs' caches lie, in one line; empty for an encoder."""
    forms: dict[str, str] = {p: r["cache"] for p, r in built.graphs.items() if "cache" in r}
    if len(set(forms.values())) > 1:
        return ", ".join(f"{phase} {form}" for phase, form in forms.items())
    return next(iter(forms.values()), "")


def _tell(built: Built, output: Path, as_json: bool) -> None:
    for file in built.removed:
        of_graph = f"its weights were in the {output.name}.data of an earlier build"
        reason = of_graph if file.suffix == ".onnx" else "no graph of this build reads it"
        tell(f"note: removed {file}: {reason}", err=True)
    for note in built.notes:
        tell(f"note: {note}", err=True)
    if as_json:
        report = {
            "files": [str(file) for file in built.files],
            "graphs": built.graphs,
            "checks": built.checks,
            "up_to_date": built.up_to_date,
        }
        click.echo(json.dumps(report, ensure_ascii=False))
        return
    if forms := _caches(built):
        click.echo(f"cache: {forms}", err=True)
    for file in built.files:
        tell(f"{file}  {size(built.sizes[file.name])}")
    if built.up_to_date:
        tell("up to date (--force builds it again)", err=True)
        return
    verified = f"{len(built.checks)} checks passed" if built.checks else "not checked"
    tell(f"{verified} (--verify {built.verify})", err=True)
