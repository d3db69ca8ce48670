"""`flowc check`: everything that needs no weight data."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from flowc.cli.annotations import annotate
from flowc.cli.compiling import a_spec, many_specs
from flowc.cli.sparing import numpy_without_threads
from flowc.cli.telling import tell
from flowc.errors import Diagnostics, FlowError, SpecError

_CACHE = re.compile(r"\.(\d+)\.")


_SAYS_SO = re.compile(r"""^["']?flowc["']?\s*:""", re.MULTILINE)
"""What every spec in YAML has at the beginning of a line."""


@click.command()
@many_specs
@click.option(
    "--only-specs", is_flag=True, help="Pass over files that do not say `flowc:`, as a hook of all YAML does."
)
def check(specs: tuple[Path, ...], only_specs: bool, as_json: bool, **options: Any) -> None:
    r"""Check specs without reading weight data; show what they make.

    \b
    flowc check model.yaml
    flowc check models/*.yaml --json
    flowc check - < model.yaml

    If the weights are there, flowc reads their headers too: names and shapes must fit. A spec from standard input (`-`)
    stands in the current folder. Of several specs, each is told; the exit code is that of the worst.
    """
    numpy_without_threads()
    if only_specs:
        specs = tuple(path for path in specs if _may_be_spec(path))
        if not specs:
            tell("no file of these is a spec", err=True)
            return
    if len(specs) == 1:
        facts = _facts(specs[0], options)
        if as_json:
            click.echo(json.dumps(facts, ensure_ascii=False))
        else:
            _tell(facts)
        return
    found: list[dict[str, Any]] = []
    problems = Diagnostics()
    for path in specs:
        try:
            facts = {"file": str(path), **_facts(path, options)}
        except FlowError as error:
            problems.include(error)
            wrong = [d.as_json() for d in error.diagnostics]
            if as_json:
                annotate(error.diagnostics)
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


def _may_be_spec(path: Path) -> bool:
    """Whether a file says that it is a spec; one that cannot be read is told of later."""
    from flowc.outside.reading import Unreadable, read_text
    from flowc.text.limits import MAX_BYTES

    try:
        text = read_text(path, MAX_BYTES)
    except (OSError, Unreadable):
        return True
    if not text.lstrip().startswith("{"):
        return _SAYS_SO.search(text) is not None
    try:
        found: Any = json.loads(text)
    except (ValueError, RecursionError):
        return "flowc" in text
    return isinstance(found, dict) and "flowc" in found and not isinstance(found["flowc"], str)  # that of a manifest


def _facts(path: Path, form: dict[str, Any]) -> dict[str, Any]:
    from flowc.api.checking import check, summary
    from flowc.api.specs import request_of

    if str(path) != "-":
        return check(a_spec(path), **form).as_json()
    from flowc.compile import compile_spec
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
    return summary(compile_spec(spec, request_of(**form), need_weights=False, problems=problems)).as_json()


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
