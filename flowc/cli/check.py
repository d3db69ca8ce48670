"""`flowc check`: everything that needs no weight data."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowc.cli.compiling import compile_options, parameters, ports, request_of
from flowc.cli.sparing import numpy_without_threads
from flowc.cli.telling import tell

if TYPE_CHECKING:
    from flowc.build.compiled import Compiled

_CACHE = re.compile(r"\.(\d+)\.")


@click.command()
@compile_options
def check(spec: Path, as_json: bool, **options: Any) -> None:
    r"""Check a spec without reading weight data; show what it makes.

    \b
    flowc check model.yaml
    flowc check model.yaml --json

    If the weights are there, flowc reads their headers too: names and shapes must fit.
    """
    numpy_without_threads()
    from flowc.compile import compile_file

    compiled = compile_file(spec, request_of(**options), need_weights=False)
    facts = describe(compiled)
    if as_json:
        click.echo(json.dumps(facts, ensure_ascii=False))
        return
    if compiled.checkpoint is None:
        tell("note: no weights were found; their names and shapes are taken from the spec", err=True)
    tell(f"{facts['name']}: {facts['kind']}, {facts['parameters']:,} parameters in {facts['tensors']} tensors")
    tell(f"weights: {facts['weights'] or 'not there'}")
    for phase, graph in facts["graphs"].items():
        tell(f"{phase}: {graph['operators']} operators")
        for direction in ("inputs", "outputs"):
            for line in folded(graph[direction].items()):
                tell(f"  {direction.removesuffix('s')} {line}")


def describe(compiled: Compiled) -> dict[str, Any]:
    """What a compiled spec makes, as plain values."""
    checkpoint = compiled.checkpoint
    return {
        "name": compiled.spec.name,
        "kind": "encoder" if "encode" in compiled.graphs else "decoder",
        "parameters": parameters(compiled),
        "tensors": len(compiled.usage.tensors),
        "weights": checkpoint.describe() if checkpoint is not None else None,
        "context_length": compiled.context_length,
        "graphs": {phase: {**ports(graph), "operators": len(graph.nodes)} for phase, graph in compiled.graphs.items()},
    }


def folded(items: Iterable[tuple[str, str]]) -> list[str]:
    """Lines of `name: type`; the caches of layers that are alike share one, with N for the layer and how many."""
    groups: dict[tuple[str, str], list[str]] = {}
    for name, kind in items:
        groups.setdefault((_CACHE.sub(".N.", name, count=1), kind), []).append(name)
    lines: list[str] = []
    for (pattern, kind), names in groups.items():
        many = len(names) > 1
        lines.append(f"{pattern if many else names[0]}: {kind}" + (f"  ({len(names)} layers)" if many else ""))
    return lines
