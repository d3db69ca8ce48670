"""`flowc golden record` and `diff`: what a model gives, written down after a person has seen what changed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowc.cli.goldens.cases import FILTER, PATH, WEIGHTS, built, cases_of, same_weights
from flowc.cli.progress import progress
from flowc.cli.telling import tell
from flowc.errors import Diagnostics, FlowError, SpecError
from flowc.outside.writing import claim, holds, write_whole

if TYPE_CHECKING:
    from flowc.golden.case import Case

_CASES = click.argument("cases", metavar="CASE.yaml|FOLDER...", nargs=-1, required=True, type=PATH)
_JSON = click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")


@click.command()
@_CASES
@FILTER
@click.option("--update", is_flag=True, help="Write over recordings that are there.")
@WEIGHTS
@_JSON
@click.pass_context
def record(
    context: click.Context, cases: tuple[Path, ...], pattern: str | None, update: bool, weights: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    r"""Build each case's model, verify it, play the case, and write its recording beside it.

    \b
    flowc golden record golden/llama.yaml
    flowc golden record golden/llama.yaml --update

    What fails the checks of `flowc build` is not recorded. Where a recording is there, what the new one says otherwise
    is shown, and it is written with --update only; exit code 1 without.
    """
    problems = Diagnostics()
    written: list[str] = []
    shown: dict[str, list[str]] = {}
    refused = False
    for case in cases_of(cases, weights, pattern):
        try:
            claim(case.recording, case.reads, holds(b'"golden": 1'))
            old = _earlier(case, update=update)
            new = _recorded(case, weights)
        except FlowError as error:  # the other cases can be recorded all the same
            problems.include(error)
            continue
        lines = _changed(old, new)
        shown[case.name] = lines
        if not as_json:
            _tell(case, lines, "unchanged" if old is not None else "new")
        if old is not None and not update:
            refused = refused or bool(lines)
            continue
        try:
            write_whole(case.recording, _text(new))
        except FlowError as error:
            problems.include(error)
            continue
        written.append(str(case.recording))
        if not as_json:
            tell(f"wrote {case.recording}")
    problems.raise_if_any()
    if as_json:
        click.echo(json.dumps({"files": written, "changes": shown}, ensure_ascii=False))
    elif refused:
        tell("nothing was written over a recording that says otherwise: --update does", err=True)
    if refused:
        context.exit(1)


@click.command()
@_CASES
@FILTER
@click.option("--since", metavar="REVISION", help="Compare the recordings with those of a git revision; play nothing.")
@WEIGHTS
@_JSON
@click.pass_context
def diff(
    context: click.Context, cases: tuple[Path, ...], pattern: str | None, since: str | None, weights: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    r"""Show what the models of cases give now beside what was recorded. Exit code 1 when something changed.

    \b
    flowc golden diff golden
    flowc golden diff golden --since origin/main

    Nothing is written. The spec, answers, tokens, logits and stages are compared, not the version that recorded them.
    """
    problems = Diagnostics()
    shown: dict[str, list[str]] = {}
    for case in cases_of(cases, weights, pattern):
        try:
            old, new = _since(case, since) if since is not None else _now(case, weights)
        except FlowError as error:
            problems.include(error)
            continue
        shown[case.name] = _changed(old, new)
        if not as_json:
            _tell(case, shown[case.name], "unchanged" if old is not None else "new")
    problems.raise_if_any()
    if as_json:
        click.echo(json.dumps({"changes": shown}, ensure_ascii=False))
    if any(shown.values()):
        context.exit(1)


def _now(case: Case, weights: Path | None) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    from flowc.golden.recording import earlier

    return earlier(case), _recorded(case, weights)


def _since(case: Case, revision: str) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    from flowc.golden.recording import load, of_bytes
    from flowc.outside.git import blob
    from flowc.outside.reading import MAX_SIDE_FILE

    new = load(case)
    name = f"{revision}:./{os.path.relpath(case.recording)}"
    return of_bytes(case, blob(name, MAX_SIDE_FILE), name), new


def _earlier(case: Case, *, update: bool) -> dict[str, Any] | None:
    """The recording that is there; one that cannot be read is as good as none to whoever asks for another."""
    from flowc.golden.recording import earlier

    try:
        return earlier(case)
    except SpecError:
        if update:
            return None
        raise


def _recorded(case: Case, weights: Path | None) -> dict[str, Any]:
    from flowc.golden.play import play

    with progress(f"playing {case.name}"), built(case, weights, verified=True) as (manifest, compiled):
        same_weights(case, case.weights_sha256, compiled)
        return play(case, manifest, compiled)


def _changed(old: dict[str, Any] | None, new: dict[str, Any]) -> list[str]:
    from flowc.golden.changes import changed

    return changed(old, new) if old is not None else []


def _text(recording: dict[str, Any]) -> str:
    from flowc.golden.recording import text

    return text(recording)


def _tell(case: Case, lines: list[str], otherwise: str) -> None:
    tell(f"{case.name}: {'changed' if lines else otherwise}")
    for line in lines:
        tell(f"  {line}")
