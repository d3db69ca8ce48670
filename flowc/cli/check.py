"""`flowc check`: everything that needs no weight data."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowc.cli.compiling import a_spec, many_specs, parameters, ports, request_of
from flowc.cli.sparing import numpy_without_threads
from flowc.cli.telling import tell
from flowc.errors import Diagnostics, FlowError, SpecError

if TYPE_CHECKING:
    from flowc.build.compiled import Compiled, Request
    from flowc.spec.spec import Spec

_CACHE = re.compile(r"\.(\d+)\.")


@click.command()
@many_specs
def check(specs: tuple[Path, ...], as_json: bool, **options: Any) -> None:
    r"""Check specs without reading weight data; show what they make.

    \b
    flowc check model.yaml
    flowc check models/*.yaml --json
    flowc check - < model.yaml

    If the weights are there, flowc reads their headers too: names and shapes must fit. A spec from standard input (`-`)
    stands in the current folder. Of several specs, each is told; the exit code is that of the worst.
    """
    numpy_without_threads()
    request = request_of(**options)
    if len(specs) == 1:
        facts = _facts(specs[0], request)
        if as_json:
            click.echo(json.dumps(facts, ensure_ascii=False))
        else:
            _tell(facts)
        return
    found: list[dict[str, Any]] = []
    problems = Diagnostics()
    for path in specs:
        try:
            facts = {"file": str(path), **_facts(path, request)}
        except FlowError as error:
            problems.include(error)
            wrong = [d.as_json() for d in error.diagnostics]
            facts = {"file": str(path), "exit_code": error.exit_code, "diagnostics": wrong}
        found.append(facts)
        if not as_json:
            tell(f"{path}: {'wrong' if 'diagnostics' in facts else 'sound'}")
    if not as_json:
        problems.raise_if_any()
        return
    click.echo(json.dumps({"specs": found}, ensure_ascii=False))
    codes = [facts["exit_code"] for facts in found if "exit_code" in facts]
    click.get_current_context().exit(min(codes, default=0, key=lambda code: (code != SpecError.exit_code, code)))


def _facts(path: Path, request: Request) -> dict[str, Any]:
    from flowc.compile import compile_file, compile_spec

    if str(path) != "-":
        return describe(compile_file(a_spec(path), request, need_weights=False))
    from flowc.spec.load import build
    from flowc.text.limits import MAX_BYTES
    from flowc.text.source import parse

    problems = Diagnostics()
    data = sys.stdin.buffer.read(MAX_BYTES + 1)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise SpecError.of("encoding", f"<stdin>: the byte at {error.start} is not UTF-8") from None
    spec = build(parse(text, "<stdin>", json=text.lstrip()[:1] == "{"), Path("stdin.yaml"), problems)
    return describe(compile_spec(spec, request, need_weights=False, problems=problems))


def _tell(facts: dict[str, Any]) -> None:
    if facts["weights"] is None:
        tell(f"note: {facts['weights_missing']}; their names and shapes are taken from the spec", err=True)
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
        "weights_missing": None if checkpoint is not None else missing_weights(compiled.spec),
        "context_length": compiled.context_length,
        "graphs": {phase: {**ports(graph), "operators": len(graph.nodes)} for phase, graph in compiled.graphs.items()},
    }


def missing_weights(spec: Spec) -> str:
    """Why no weights are at hand: which file is not there and where the spec names it, or that it names none."""
    path = spec.weights_path()
    if path is None or spec.weights is None:
        return "the spec names no weights"
    return f"there are no weights at '{path}', which {spec.weights.span} names"


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
