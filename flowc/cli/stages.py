"""`flowc stages`: the reference of stage kinds."""

from __future__ import annotations

import json
import re
import textwrap
from typing import Any

import click

from flowc.cli.sparing import numpy_without_threads
from flowc.errors import SpecError, nearest


def _complete(_: click.Context, __: click.Parameter, begun: str) -> list[str]:
    from flowc.stages import load_all

    return sorted(kind for kind in load_all() if kind.startswith(begun))


@click.command()
@click.argument("kind", required=False, shell_complete=_complete)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def stages(kind: str | None, as_json: bool) -> None:
    r"""List the stage kinds, or all about one of them.

    \b
    flowc stages
    flowc stages rms_norm
    """
    numpy_without_threads()
    from flowc.reference.describe import describe
    from flowc.stages import load_all

    registry = load_all()
    if kind is not None and kind not in registry:
        hint = nearest(kind, registry) or "`flowc stages` lists all kinds"
        raise SpecError.of("unknown-stage", f"there is no stage kind '{kind}'", hint=hint)
    found = [describe(cls) for name, cls in sorted(registry.items()) if kind in (None, name)]
    if as_json:
        click.echo(json.dumps({"stages": found}, ensure_ascii=False))
    elif kind is not None:
        click.echo(_all_about(found[0]))
    else:
        width = max(len(stage["name"]) for stage in found)
        for stage in found:
            click.echo(f"{stage['name']:{width}}  {first_sentence(stage['doc'])}")


def first_sentence(text: str) -> str:
    """Up to the first full stop that ends a sentence."""
    return re.split(r"(?<!\bal)\.(?: (?=[A-Z`])|$)", text, maxsplit=1)[0]


def _all_about(stage: dict[str, Any]) -> str:
    from flowc.records.describe import bounds, when_left_out

    lines = [stage["name"], "", textwrap.fill(stage["doc"], 100), "", f"  - {stage['example']}", ""]
    for field in stage["fields"]:
        lines.append(f"{field['name']}: {', '.join(filter(None, (field['type'], bounds(field), field['unit'])))}")
        lines.append(f"    {field['doc']} [{when_left_out(field)}]")
    lines += ["", *(f"weight {weight}" for weight in stage["weights"])]
    lines.append(f"reads {', '.join(stage['reads']) or 'nothing'}; writes {', '.join(stage['writes']) or 'nothing'}")
    if stage["reference"]:
        lines.append(f"as {stage['reference']}")
    return "\n".join(lines)
