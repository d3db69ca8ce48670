"""`flowc golden check`: is what the models of cases give still what was recorded?"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flowc.cli.annotations import annotate
from flowc.cli.failing import BUG, as_bug, explain
from flowc.cli.goldens.cases import FILTER, PATH, WEIGHTS, Found, built, find, same_weights
from flowc.cli.progress import progress
from flowc.cli.telling import tell
from flowc.cli.threads import THREADS
from flowc.errors import Diagnostic, FlowError, MissingTool, WeightsError
from flowc.outside.writing import claim, holds, write_whole

if TYPE_CHECKING:
    from flowc.golden.verdict import Report


@click.command()
@click.argument("cases", metavar="CASE.yaml|FOLDER...", nargs=-1, required=True, type=PATH)
@FILTER
@click.option(
    "--model",
    "models",
    metavar="[CASE=]MODEL",
    multiple=True,
    help="A built model to check, instead of building the case's own; by case where there are several.",
)
@WEIGHTS
@click.option("--threads", type=THREADS, default=1, help="Of onnxruntime; another number may give other bytes.  [1]")
@click.option("-j", "--jobs", type=click.IntRange(1, 256), default=1, help="Cases that are played at once.  [1]")
@click.option("--strict", is_flag=True, help="Other bytes and another spec fail too.")
@click.option("--junit", "junit_file", type=PATH, help="Write a JUnit report.")
@click.option("--report", "report_file", type=PATH, help="Write a JSON report.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.pass_context
def check(
    context: click.Context, cases: tuple[Path, ...], pattern: str | None, models: tuple[str, ...],
    weights: Path | None, threads: int, jobs: int, strict: bool, junit_file: Path | None, report_file: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    r"""Play recorded cases again and judge each step: MATCH, TIE, DRIFT or DIVERGED.

    \b
    flowc golden check golden -j 4 --junit golden.xml
    flowc golden check golden -k 'llama*' --model llama=out/llama

    Recorded tokens are fed, so that one tie does not poison the rest. What the spec says otherwise than when it was
    recorded is told. A case that cannot be played is an ERROR, and the others go on.

    Exit code 1 when a step DIVERGED, and with --strict when one is in TIE or DRIFT (other bytes, inside the tolerance)
    or the spec changed; that of its error when a case could not be played.
    """
    from flowc.golden.junit import junit

    found = find(cases, weights, pattern)
    by_case = _models(models, found)
    _claim(found, by_case, junit_file, report_file)
    tasks = [_Task(one, weights, by_case.get(one.name), threads) for one in found]
    reports: list[Report] = []
    with progress() as shown:
        if shown is not None:
            shown("playing cases", 0, len(tasks))
        for report in _played(tasks, jobs):
            reports.append(report)
            if shown is not None:
                shown("playing cases", len(reports), len(tasks))
    code = _code(reports, strict=strict)
    facts = {"passed": code == 0, "exit_code": code, "cases": [report.as_json() for report in reports]}
    if junit_file is not None:
        write_whole(junit_file, junit(reports, strict=strict))
    if report_file is not None:
        write_whole(report_file, json.dumps(facts, indent=1) + "\n")
    if as_json:
        click.echo(json.dumps(facts))
    else:
        for report in reports:
            _tell(report)
    for report in reports:
        annotate(report.problems)
        if report.fails(strict=strict) and not report.problems:
            annotate([Diagnostic("other-results", f"case '{report.name}' gives something else than was recorded")])
    if all(report.skipped for report in reports):
        tell("no case was played: the weights of none are there", err=True)
    if code:
        context.exit(code)


def _models(given: Sequence[str], found: Sequence[Found]) -> dict[str, Path]:
    """Built models by the name of their case."""
    names = [one.name for one in found]
    by_case: dict[str, Path] = {}
    for text in given:
        name, equals, path = text.partition("=")
        if equals and name in names:
            by_case[name] = Path(path)
        elif len(names) == 1 and len(given) == 1:
            by_case[names[0]] = Path(text)
        elif equals and not Path(text).exists():
            raise click.UsageError(f"--model {text}: there is no case '{name}'; they are {', '.join(names[:20])}")
        else:
            raise click.UsageError(f"--model {text}: of several cases, say whose model it is: --model CASE={text}")
    return by_case


def _claim(found: Sequence[Found], models: dict[str, Path], junit: Path | None, report: Path | None) -> None:
    from flowc.build import manifest as manifests

    reads = [file for one in found if one.case is not None for file in (*one.case.reads, one.case.recording)]
    reads += [one.path for one in found]
    for model in models.values():
        reads += manifests.load(model).files
    for file, mark in ((junit, b'<testsuites name="flowc golden"'), (report, b'"passed":')):
        if file is not None:
            claim(file, reads, holds(mark))


@dataclass(frozen=True, slots=True)
class _Task:
    """All that a process needs to play a case."""

    found: Found
    weights: Path | None
    model: Path | None
    threads: int


def _played(tasks: Sequence[_Task], jobs: int) -> Iterator[Report]:
    """A report for each case, in order; from processes of their own where several are played at once."""
    if jobs == 1 or len(tasks) < 2:
        yield from map(_report, tasks)
        return
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor
    from concurrent.futures.process import BrokenProcessPool

    from flowc.golden.verdict import Report

    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(jobs, len(tasks)), context, _ignore_interrupts)
    try:
        for task, future in [(task, pool.submit(_report, task)) for task in tasks]:
            try:
                yield future.result()
            except BrokenProcessPool:
                lack = MissingTool.of("no-memory", "a process that played cases was ended from outside")
                yield Report(task.found.name, problems=lack.diagnostics, exit_code=lack.exit_code)
    except BaseException:
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


def _ignore_interrupts() -> None:
    """Ctrl-C reaches every process of the terminal; the first one ends the others."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _report(task: _Task) -> Report:
    from flowc.golden.verdict import Report

    name, start = task.found.name, time.monotonic()
    try:
        if task.found.skipped:
            return Report(name, skipped=task.found.skipped)
        report = _judged(task)
    except Exception as error:
        failure = explain(error)
        problems = as_bug(error) if failure is None else failure.diagnostics
        report = Report(name, problems=problems, exit_code=BUG if failure is None else failure.exit_code)
    report.seconds = time.monotonic() - start
    return report


def _judged(task: _Task) -> Report:
    from flowc.golden.play import play
    from flowc.golden.recording import load
    from flowc.golden.verdict import judge

    case = task.found.case
    if case is None:
        assert task.found.problem is not None, "a file that is no case has its reason"
        raise task.found.problem
    recorded = load(case)
    with built(case, task.weights, task.model) as (manifest, compiled):
        if task.model is None:
            same_weights(case, recorded.get("weights_sha256"), compiled)
        return judge(case, recorded, play(case, manifest, compiled, recorded, task.threads))


def _code(reports: Sequence[Report], *, strict: bool) -> int:
    """That of the worst error (a wrong spec before wrong weights), else whether a step failed."""
    codes = [report.exit_code for report in reports if report.problems]
    if codes:
        return max(codes) if BUG in codes else min(codes)
    if all(report.skipped for report in reports):  # what checked nothing has not passed
        return WeightsError.exit_code
    return int(any(report.fails(strict=strict) for report in reports))


def _tell(report: Report) -> None:
    counts = {v: sum(j.verdict == v for j in report.judged) for v in ("MATCH", "TIE", "DRIFT", "DIVERGED")}
    summary = ", ".join(f"{count} {verdict}" for verdict, count in counts.items() if count)
    tell(f"{report.verdict:8} {report.name}: {summary or report.skipped or 'not played'} ({report.seconds:.1f} s)")
    for change in report.spec_changes:
        tell(f"  the spec is not the one that was recorded: {change}")
    for judged in report.judged:
        if judged.verdict != "MATCH":
            tell(f"  {judged.verdict:8} {judged.what}: error {judged.error:.2g} {judged.detail}".rstrip())
    if report.problems:
        click.echo(FlowError(report.problems).render(), err=True)
