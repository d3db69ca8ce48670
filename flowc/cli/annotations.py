"""Errors as GitHub shows them beside the lines of a change: workflow commands on stderr, where they are asked for.

    ::error file=models/model.yaml,line=9,col=5,title=flowc unknown-stage::there is no stage 'lm_heda'

`FLOWC_ANNOTATIONS=github` asks for them (action.yml sets it); paths start at the workspace, as GitHub wants them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

import click

from flowc.errors import Diagnostic, harmless

VARIABLE = "FLOWC_ANNOTATIONS"


def annotate(diagnostics: Iterable[Diagnostic]) -> None:
    """Write a line for each diagnostic, if that is asked for."""
    if os.environ.get(VARIABLE) != "github":
        return
    for diagnostic in diagnostics:
        click.echo(_line(diagnostic), err=True)


def _line(diagnostic: Diagnostic) -> str:
    properties: dict[str, object] = {}
    span = diagnostic.span
    if span is not None:
        properties = {"file": _from_workspace(span.source.name), "line": span.line, "col": span.column}
        if span.end_line > span.line:
            properties["endLine"] = span.end_line
        elif span.end_column > span.column:
            properties["endColumn"] = span.end_column - 1  # inclusive there
    properties["title"] = f"flowc {diagnostic.code}"
    told = ",".join(f"{name}={_escaped(str(value), ':,')}" for name, value in properties.items())
    message = "\n".join(filter(None, (harmless(diagnostic.message), harmless(diagnostic.hint))))
    kind = "warning" if diagnostic.severity == "warning" else "error"
    return f"::{kind} {told}::{_escaped(message)}"


def _from_workspace(name: str) -> str:
    workspace = os.environ.get("GITHUB_WORKSPACE")
    path = os.path.abspath(name)
    inside = workspace is not None and os.path.commonpath([path, os.path.abspath(workspace)]) == os.path.abspath(
        workspace
    )
    return os.path.relpath(path, workspace) if inside else name


def _escaped(text: str, more: str = "") -> str:
    """A text in which nothing ends the command or begins another one."""
    return "".join(f"%{ord(c):02X}" if c in "%\r\n" + more else c for c in text)
