"""`flowc verify`: is a built model what its spec means?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flowc.cli.annotations import annotate
from flowc.cli.parameters import Number
from flowc.cli.progress import progress
from flowc.cli.sparing import onnx_ir_without_sympy
from flowc.cli.telling import tell

if TYPE_CHECKING:
    from flowc.verify.checks import Check, Checks


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--weights", type=click.Path(path_type=Path), help="The original weights, to check the data file too.")
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    help="A reference from outside: arrays in an .npz, or a HuggingFace folder (needs the extra `parity`).",
)
@click.option("--tolerance", type=Number(min=0), help="Allowed error of --against, absolute.  [1e-4]")
@click.option("--bisect-passes", is_flag=True, help="Name the pass that makes a wrong graph wrong, by building again.")
@click.option(
    "--memory",
    metavar="GB",
    type=Number(min=0.1, max=1e6),
    default=2.0,
    help="What one comparison may take, beside the weights.  [2]",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.pass_context
def verify(
    context: click.Context,
    model: Path,
    weights: Path | None,
    against: Path | None,
    tolerance: float | None,
    bisect_passes: bool,
    memory: float,
    as_json: bool,
) -> None:
    r"""Check a built model against what its spec means: files, numbers, caches, padding.

    \b
    flowc verify out/model.onnx
    flowc verify out/model.onnx --weights SmolLM2-135M-Instruct.Q4_1.gguf
    flowc verify out/model.onnx --against reference.npz

    MODEL is any graph, the manifest, or their folder. Exit code 1 when something is wrong; the first stage that gives
    wrong numbers is named with its place in the spec.
    """
    if tolerance is not None and against is None:
        raise click.UsageError("--tolerance is that of --against, which is not given", context)
    onnx_ir_without_sympy()
    from flowc.api.verifying import verify as run

    with progress("compiling") as shown:
        found = run(
            model, weights=weights, against=against, tolerance=tolerance, bisect_passes=bisect_passes, memory=memory,
            progress=shown,
        )  # fmt: skip
    if as_json:
        click.echo(json.dumps(found.as_json(), ensure_ascii=False))
    else:
        _tell(found.found, found.culprit, found.reference)
    if found.error is not None:
        annotate(found.error.diagnostics)
        context.exit(1)


def _tell(checks: Checks, found: str | None, reference: str) -> None:
    root = checks.root
    for alike in _grouped(checks.done, root):
        tell(_line(alike))
    tell(f"weights: {reference}")
    if found is not None:
        tell(f"pass: {found}")
    if checks.failures:
        click.echo(checks.render(), err=True)


def _grouped(done: list[Check], root: Check | None) -> list[list[Check]]:
    """The root cause alone and first, then checks of one kind, graph and outcome together."""
    groups: dict[object, list[Check]] = {} if root is None else {"root": [root]}
    for number, check in enumerate(done):
        if check is not root:
            key = number if check.name == "skipped" else (check.name, check.graph, check.passed)
            groups.setdefault(key, []).append(check)
    return list(groups.values())


def _line(alike: list[Check]) -> str:
    first = alike[0]
    measured = [c for c in alike if c.worst is not None]
    detail, error = first.detail, ""
    if len(alike) > 1:
        detail = f"{len(alike)} times" if first.passed else f"{len(alike)} times, first: {detail}"
    if first.passed and measured:
        worst = max((c.worst for c in measured if c.worst), key=lambda d: d.ratio)
        error = f", worst error {worst.error:.1e} of {worst.allowed:.1e}"
    mark = "ok  " if first.passed else "FAIL"
    return f"{mark} {first.name:9} {first.graph:8} {detail}{error}".rstrip()
