"""`flowc inspect`: what a spec or a build is made of."""

from __future__ import annotations

import json
import re
from itertools import groupby
from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from flowc.cli.compiling import form_options
from flowc.cli.sparing import numpy_without_threads
from flowc.cli.telling import tell
from flowc.errors import SpecError, nearest

_INDEX = re.compile(r"(.*)\.(\d+)((?:\.\D[^.]*)*)")
_SIZES = {"operators": "{:,}", "parameters": "{:,}", "macs": "{:,}", "bytes_read": "{:,}", "cache_bytes": "{:,}"}


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--weights", type=click.Path(path_type=Path), help="Weights, instead of those that a spec names.")
@form_options
@click.option("--batch", type=click.IntRange(min=1), default=1, help="Sequences (or images) a run.  [1]")
@click.option("--sequence", type=click.IntRange(min=1), default=128, help="New tokens of a prefill.  [128]")
@click.option("--past", type=click.IntRange(min=0), default=128, help="Cached tokens of a decode step.  [128]")
@click.option("--graph", "graphs", metavar="NAME", multiple=True, help="Show this graph only; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.pass_context
def inspect(
    context: click.Context, /, model: Path, weights: Path | None, batch: int, sequence: int, past: int,
    graphs: tuple[str, ...], as_json: bool, **form: Any,
) -> None:  # fmt: skip
    r"""Show inputs, outputs, versions, sizes, what each stage costs, and where operators run.

    \b
    flowc inspect out/model.onnx
    flowc inspect model.yaml --sequence 512 --graph prefill

    MODEL is a spec, or any file of a build. The options that decide how graphs are made are for a spec alone.
    Multiply-adds and bytes are those of one run at the given sizes, `before -> after` where the passes change them.
    """
    numpy_without_threads()
    from flowc.api.specs import request_of
    from flowc.report.facts import facts
    from flowc.report.subject import is_spec, named

    given = [name for name in form if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    if given and not is_spec(model):
        option = next(p.opts[0] for p in context.command.params if p.name == given[0])
        raise click.UsageError(f"{option} is for a spec; '{model}' is a build, whose manifest says it", context)
    request = request_of(weights=weights, **form) if is_spec(model) else None
    found = facts(named(model, weights, request), {"batch": batch, "sequence": sequence, "past": past})
    if graphs:
        for name in graphs:
            if name not in found["graphs"]:
                hint = nearest(name, found["graphs"]) or f"it has {', '.join(found['graphs'])}"
                raise SpecError.of("unknown-graph", f"there is no graph '{name}'", hint=hint)
        found["graphs"] = {k: v for k, v in found["graphs"].items() if k in graphs}
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False))
        return
    _tell(found)


def _tell(found: dict[str, Any]) -> None:
    from flowc.cli.check import folded

    versions = ", ".join(f"{k} {v}" for k, v in found["versions"].items())
    tell(f"{found['name']}: {found['kind']} for {found['target']} ({versions})")
    tell(f"weights: {found['weights'] or 'not at hand'}; context: {found['context_length'] or 'not stated'}")
    for record in found.get("files", ()):
        tell(f"file {record['file']}  {record['bytes']:,} bytes")
    for phase, graph in found["graphs"].items():
        sizes = ", ".join(f"{k} {v}" for k, v in found["sizes"].items())
        tell("")
        tell(f"{phase} ({sizes})")
        for direction in ("inputs", "outputs"):
            for line in folded(graph[direction].items()):
                tell(f"  {direction.removesuffix('s'):6} {line}")
        for provider, operators in graph.get("placement", {}).items():
            tell(
                f"  {provider}: {sum(operators.values())} nodes ({', '.join(f'{k} {v}' for k, v in operators.items())})"
            )
        for line in table(
            [{"stage": "total", **graph["after"], "before": graph["before"]}, *fold_layers(graph["stages"])]
        ):
            tell(f"  {line}")


def fold_layers(stages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Stages with equal neighbouring layers as rows of the first, which say how many they are; numbers are of each."""
    runs: list[list[list[dict[str, Any]]]] = []  # of equal layers, each a list of stages
    for layer in (list(group) for _, group in groupby(stages, key=lambda stage: _parts(stage)[:2])):
        numbered = _parts(layer[0])[1] >= 0
        if runs and numbered and list(map(_alike, runs[-1][-1])) == list(map(_alike, layer)):
            runs[-1].append(layer)
        else:
            runs.append([layer])
    return [
        stage if len(run) == 1 else {**stage, "stage": _of_all(stage, _parts(run[-1][0])[1], len(run))}
        for run in runs
        for stage in run[0]
    ]


def _parts(stage: dict[str, Any]) -> tuple[str, int, str]:
    """What stands before a stage's last index, the index, and what stands behind; -1 where there is none."""
    match = _INDEX.fullmatch(stage["stage"])
    return (match[1], int(match[2]), match[3]) if match else (stage["stage"], -1, "")


def _alike(stage: dict[str, Any]) -> object:
    before, _, behind = _parts(stage)
    return before, behind, {k: v for k, v in stage.items() if k != "stage"}


def _of_all(stage: dict[str, Any], last: int, count: int) -> str:
    before, first, behind = _parts(stage)
    return f"{before}.{first} … {last}{behind} (x {count}, each)"


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Lines of a table: the stage, then its numbers."""
    cells = [["stage", *_SIZES]] + [[r["stage"], *(_change(r, k, f) for k, f in _SIZES.items())] for r in rows]
    widths = [max(len(row[i]) for row in cells) for i in range(len(cells[0]))]
    return [
        "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
        for row in cells
    ]


def _change(row: dict[str, Any], key: str, form: str) -> str:
    before, after = row["before"][key], row[key]
    return form.format(after) if before == after else f"{form.format(before)} -> {form.format(after)}"
