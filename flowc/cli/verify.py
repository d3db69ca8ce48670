"""`flowc verify`: is a built model what its spec means?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

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
    from flowc.build import manifest as manifests
    from flowc.verify.bisect import bisect
    from flowc.verify.external_reference import check_against
    from flowc.verify.full import verify as run
    from flowc.verify.rebuild import recompile

    manifest = manifests.load(model)
    compiled = recompile(manifest, weights)
    with progress() as shown:
        checks = run(manifest, compiled, int(memory * 1e9), shown)
    if against is not None:
        check_against(checks, against, tolerance)
    found = bisect(checks) if bisect_passes and checks.failures else None
    if as_json:
        click.echo(json.dumps(_facts(manifest, checks, found), ensure_ascii=False))
    else:
        _tell(checks, found, _reference(compiled.checkpoint))
    if checks.failures:
        context.exit(1)


def _facts(manifest: Any, checks: Checks, found: str | None) -> dict[str, Any]:
    files = [str(manifest.folder / record.file) for record in manifest.graphs.values()]
    graphs = {phase: {"file": record.file, "sha256": record.sha256} for phase, record in manifest.graphs.items()}
    facts: dict[str, Any] = {
        "files": files,
        "graphs": graphs,
        "checks": checks.as_json(),
        "passed": not checks.failures,
    }
    facts["reference"] = _reference(checks.subject.compiled.checkpoint)
    if found is not None:
        facts["pass"] = found
    return facts


def _reference(checkpoint: Any) -> str:
    return checkpoint.describe() if checkpoint is not None else "the data file itself (give the original: --weights)"


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
