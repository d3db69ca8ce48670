"""Reports that CI systems read."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from flowc.errors import harmless
from flowc.golden.verdict import Report


def junit(reports: Sequence[Report], *, strict: bool) -> str:
    """JUnit XML: a suite a case, a test a step; a case that could not be played is one test with an error."""
    root = Element("testsuites", name="flowc golden")
    for report in reports:
        _suite(root, report, strict=strict)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _suite(root: Element, report: Report, *, strict: bool) -> None:
    bad = [j for j in report.judged if j.verdict == "DIVERGED" or (strict and j.verdict != "MATCH")]
    changed = bool(report.spec_changes)
    counts = {
        "tests": len(report.judged) + changed or 1, "failures": len(bad) + (strict and changed),
        "errors": int(bool(report.problems)), "skipped": int(bool(report.skipped)),
    }  # fmt: skip
    attributes = {"name": harmless(report.name), "time": f"{report.seconds:.3f}"}
    suite = SubElement(root, "testsuite", attributes | {key: str(count) for key, count in counts.items()})
    if report.problems or report.skipped:
        test = SubElement(suite, "testcase", classname=harmless(report.name), name="case", time=f"{report.seconds:.3f}")
        if report.skipped:
            SubElement(test, "skipped", message=harmless(report.skipped))
        for problem in report.problems:
            error = SubElement(test, "error", message=harmless(problem.message), type=problem.code)
            error.text = _legal(problem.render())
        return
    if changed:
        test = SubElement(suite, "testcase", classname=harmless(report.name), name="spec", time="0")
        text = "\n".join(map(harmless, report.spec_changes))
        if strict:
            SubElement(test, "failure", message="the spec is not the one that was recorded", type="SPEC").text = text
        else:
            SubElement(test, "system-out").text = f"the spec is not the one that was recorded\n{text}"
    for judged in report.judged:
        test = SubElement(suite, "testcase", classname=harmless(report.name), name=harmless(judged.what), time="0")
        text = harmless(f"{judged.verdict}: error {judged.error:.3g} {judged.detail}".rstrip())
        if judged in bad:
            SubElement(test, "failure", message=text, type=judged.verdict)
        else:
            SubElement(test, "system-out").text = text


def _legal(text: str) -> str:
    """The text with what XML has no place for left out; lines stay lines."""
    return "\n".join(map(harmless, text.split("\n")))
