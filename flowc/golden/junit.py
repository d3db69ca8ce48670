"""Reports that CI systems read."""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree

from flowc.golden.verdict import Report


def junit(reports: Sequence[Report], *, strict: bool) -> str:
    """JUnit XML: a suite a case, a test a step."""
    root = ElementTree.Element("testsuites", name="flowc golden")
    for report in reports:
        bad = [j for j in report.judged if j.verdict == "DIVERGED" or (strict and j.verdict == "DRIFT")]
        suite = ElementTree.SubElement(
            root, "testsuite", name=report.name, tests=str(len(report.judged)), failures=str(len(bad)), errors="0"
        )
        for judged in report.judged:
            test = ElementTree.SubElement(suite, "testcase", classname=report.name, name=judged.what, time="0")
            text = f"{judged.verdict}: error {judged.error:.3g} {judged.detail}".rstrip()
            if judged in bad:
                ElementTree.SubElement(test, "failure", message=text, type=judged.verdict)
            else:
                ElementTree.SubElement(test, "system-out").text = text
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="utf-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"
