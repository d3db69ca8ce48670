"""`flowc golden`: record what a model gives, and check that it still does."""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowc.cli.groups import SETTINGS, Commands, help_alone
from flowc.cli.progress import progress
from flowc.cli.sparing import onnx_ir_without_sympy
from flowc.cli.telling import tell
from flowc.cli.threads import THREADS
from flowc.errors import Diagnostics, FlowError, SpecError, WeightsError
from flowc.outside.writing import claim, holds, write_whole

if TYPE_CHECKING:
    from flowc.build.compiled import Compiled
    from flowc.build.manifest import Manifest
    from flowc.golden.case import Case
    from flowc.golden.verdict import Report

_NUMBERS = re.compile(r"\[\s+((?:\"[^\"]*\"|-?\d+)(?:,\s+(?:\"[^\"]*\"|-?\d+))*)\s+\]")
_PATH = click.Path(path_type=Path)
_WEIGHTS = click.option("--weights", type=_PATH, help="Weights, instead of those that the case or its spec names.")


@click.group(cls=Commands, invoke_without_command=True, context_settings=SETTINGS)
@click.pass_context
def golden(context: click.Context) -> None:
    r"""Record what a model gives, check that it still does, export it for other tools.

    \b
    flowc golden record golden/cases/llama.yaml
    flowc golden check golden/cases --junit golden.xml
    flowc golden export golden/cases/llama.yaml -o out/onnx-test
    """
    help_alone(context)


@golden.command()
@click.argument("cases", metavar="CASE.yaml...", nargs=-1, required=True, type=_PATH)
@_WEIGHTS
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def record(cases: tuple[Path, ...], weights: Path | None, as_json: bool) -> None:
    """Build each case's model, play the case, and write its recording beside it."""
    from flowc.golden.play import play

    written: list[str] = []
    problems = Diagnostics()
    for case in _load(cases, weights):
        try:
            claim(case.recording, case.reads, holds(b'"golden": 1'))
            with _built(case, weights, None) as (manifest, compiled):
                _same_weights(case, case.weights_sha256, compiled)
                write_whole(case.recording, _compact(play(case, manifest, compiled)))
        except FlowError as error:  # the other cases can be recorded all the same
            problems.include(error)
            continue
        written.append(str(case.recording))
        if not as_json:
            tell(case.recording)
    problems.raise_if_any()
    if as_json:
        click.echo(json.dumps({"files": written}))


@golden.command()
@click.argument("cases", metavar="CASE.yaml|FOLDER...", nargs=-1, required=True, type=_PATH)
@click.option("--model", type=_PATH, help="A built model to check, instead of building the case's own.")
@_WEIGHTS
@click.option("--threads", type=THREADS, default=1, help="Of onnxruntime; another number may give other bytes.  [1]")
@click.option("--strict", is_flag=True, help="Other bytes fail too, even inside the tolerance.")
@click.option("--junit", "junit_file", type=_PATH, help="Write a JUnit report.")
@click.option("--report", "report_file", type=_PATH, help="Write a JSON report.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.pass_context
def check(
    context: click.Context,
    cases: tuple[Path, ...],
    model: Path | None,
    weights: Path | None,
    threads: int,
    strict: bool,
    junit_file: Path | None,
    report_file: Path | None,
    as_json: bool,
) -> None:
    r"""Play recorded cases again and judge each step: MATCH, TIE, DRIFT or DIVERGED.

    Recorded tokens are fed, so that one tie does not poison the rest. Exit code 1 when a step DIVERGED, and with
    --strict when one is in DRIFT (other bytes, inside the tolerance).
    """
    from flowc.golden.junit import junit

    loaded = _load(cases, weights)
    reads = [f for case in loaded for f in (*case.reads, case.recording)] + _files_of(model)
    for file, mark in ((junit_file, b'<testsuites name="flowc golden"'), (report_file, b'"passed":')):
        if file is not None:
            claim(file, reads, holds(mark))
    reports: list[Report] = []
    with progress() as shown:
        for done, case in enumerate(loaded):
            if shown is not None:
                shown("playing cases", done, len(loaded))
            reports.append(_checked(case, weights, model, threads))
    failed = any(report.fails(strict=strict) for report in reports)
    facts = {"passed": not failed, "cases": [report.as_json() for report in reports]}
    if junit_file is not None:
        write_whole(junit_file, junit(reports, strict=strict))
    if report_file is not None:
        write_whole(report_file, json.dumps(facts, indent=1) + "\n")
    if as_json:
        click.echo(json.dumps(facts))
    else:
        for report in reports:
            _tell(report)
    if failed:
        context.exit(1)


@golden.command()
@click.argument("cases", metavar="CASE.yaml...", nargs=-1, required=True, type=_PATH)
@click.option("-o", "--output", metavar="FOLDER", required=True, type=_PATH, help="Where to write.")
@_WEIGHTS
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def export(cases: tuple[Path, ...], output: Path, weights: Path | None, as_json: bool) -> None:
    """Write ONNX test data, which onnx's backend runner and onnx_test_runner replay."""
    from flowc.golden.export import claim_folders
    from flowc.golden.export import export as write
    from flowc.verify.rebuild import subject_of

    written: list[Path] = []
    loaded = _load(cases, weights)
    for case in loaded:
        claim_folders(case, output)
    for case in loaded:
        with _built(case, weights, None) as (manifest, compiled):
            written += write(case, manifest, subject_of(manifest, compiled), output)
    if as_json:
        click.echo(json.dumps({"folders": [str(folder) for folder in written]}))
        return
    for folder in written:
        tell(folder)


def _load(paths: Sequence[Path], weights: Path | None) -> list[Case]:
    """The cases of files and of folders; of folders without those whose checkpoint is not there, which is said."""
    from flowc.golden.case import load

    files: list[Path] = []
    for path in paths:
        inside = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
        if not inside:
            raise SpecError.of("missing-file", f"{path} holds no golden case (*.yaml)")
        files += inside
    cases: list[Case] = []
    for file in files:
        case = load(file)
        if file in paths or weights or case.checkpoint is None or case.checkpoint.exists():
            cases.append(case)
        else:
            tell(f"note: {file} is left out: {case.checkpoint} is not there (give it with --weights)", err=True)
    return cases


def _files_of(model: Path | None) -> list[Path]:
    from flowc.build import manifest as manifests

    return [] if model is None else list(manifests.load(model).files)


@contextlib.contextmanager
def _built(case: Case, weights: Path | None, model: Path | None) -> Generator[tuple[Manifest, Compiled]]:
    """The case's model: built into a folder that is gone afterwards, or one that is there."""
    from flowc.build import manifest as manifests
    from flowc.build.compiled import Request
    from flowc.compile import build, compile_file
    from flowc.verify.rebuild import recompile

    if model is not None:
        manifest = manifests.load(model)
        yield manifest, recompile(manifest, weights)
        return
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        imported = case.spec is None
        spec = _imported(case, weights, work) if case.spec is None else case.spec
        onnx_ir_without_sympy()
        compiled = compile_file(spec, Request(None if imported else weights, target=case.target))
        build(compiled, work / "out" / "model.onnx", verify="off")
        yield manifests.load(work / "out"), compiled


def _imported(case: Case, weights: Path | None, work: Path) -> Path:
    """A spec of the case's checkpoint, or of the one that --weights gives in its place."""
    from flowc.importers import import_checkpoint

    checkpoint = weights or case.checkpoint
    assert checkpoint is not None
    spec = work / f"{case.name}.yaml"
    write_whole(spec, import_checkpoint(checkpoint).text(work))
    return spec


def _same_weights(case: Case, expected: object, compiled: Compiled) -> None:
    """Raise WeightsError unless the weights are those that a case names, or was recorded with."""
    from flowc.golden.play import weights_hashes

    wanted = [expected] if isinstance(expected, str) else expected
    found = weights_hashes(compiled)
    if wanted and found and wanted != found:
        raise WeightsError.of(
            "other-weights", f"case '{case.name}' was made for other weights: sha256 {found[0][:16]}…"
        )


def _checked(case: Case, weights: Path | None, model: Path | None, threads: int) -> Report:
    from flowc.golden.play import play
    from flowc.golden.recording import load
    from flowc.golden.verdict import judge

    recorded = load(case)
    with _built(case, weights, model) as (manifest, compiled):
        if model is None:
            _same_weights(case, recorded.get("weights_sha256"), compiled)
        return judge(case, recorded, play(case, manifest, compiled, recorded, threads))


def _compact(recording: dict[str, Any]) -> str:
    """JSON with lists of numbers on one line each, so that a diff shows what changed."""
    return _NUMBERS.sub(lambda m: "[" + re.sub(r"\s+", " ", m[1]) + "]", json.dumps(recording, indent=1)) + "\n"


def _tell(report: Report) -> None:
    counts = {v: sum(j.verdict == v for j in report.judged) for v in ("MATCH", "TIE", "DRIFT", "DIVERGED")}
    summary = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    tell(f"{report.verdict:8} {report.name}: {summary}")
    for judged in report.judged:
        if judged.verdict != "MATCH":
            tell(f"  {judged.verdict:8} {judged.what}: error {judged.error:.2g} {judged.detail}".rstrip())
