"""The report of a spec or a build: one HTML file that needs no network, no server and no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import jinja2

from flowc import __version__
from flowc.ir.traits import Category
from flowc.passes.explain import explain
from flowc.report.drawing import draw
from flowc.report.subject import Named

PAGE = Path(__file__).with_name("page.html")
"""The page as a template. It escapes what is put into it, apart from drawings, which are markup themselves."""


def render(subject: Named, facts: Mapping[str, Any], checks: Sequence[Mapping[str, Any]]) -> str:
    """The page. `facts` as `flowc.report.facts` gives them; `checks` as a build's check does, empty when not run."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    environment.filters |= {"short": _short, "bytes": _bytes, "seen": _seen}
    return environment.from_string(PAGE.read_text(encoding="utf-8")).render(
        facts=facts,
        cards=_cards(facts),
        categories=get_args(Category),
        drawings={phase: draw(graph) for phase, graph in subject.compiled.graphs.items()},
        passes=explain(subject.compiled.audits),
        checks=checks,
        version=__version__,
    )


def _cards(facts: Mapping[str, Any]) -> list[tuple[str, object]]:
    first = next(iter(facts["graphs"].values()))
    return [
        ("parameters", _short(first["after"]["parameters"])),
        ("graphs", ", ".join(facts["graphs"])),
        ("target", facts["target"]),
        ("context", facts["context_length"] or "–"),
        ("assumes", facts["assume"] if facts["assume"] != "none" else "nothing"),
        ("on disk", _bytes(sum(f["bytes"] for f in facts.get("files", ())))),
    ]


def _seen(check: Mapping[str, Any]) -> str:
    """What a check saw, in one line."""
    return ", ".join(f"{k} {v}" for k, v in check.items() if k not in ("name", "passed") and v not in (None, ""))


def _short(number: float) -> str:
    for size, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:g}"


def _bytes(number: int) -> str:
    return "–" if not number else _short(number).rstrip() + ("B" if number >= 1000 else " B")
