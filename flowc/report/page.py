"""The report of a spec or a build: one HTML file that needs no network and no server, and no script to be read.

`page.html` is the page, filled in with every text escaped; `page.css` and `page.js` stand in it as they are. A policy
in the page lets nothing else run, and nothing be loaded.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from flowc import __version__
from flowc.ir.traits import Category
from flowc.passes.explain import explain
from flowc.passes.pipeline import pass_summaries
from flowc.report.drawing import Box, Card, Picture, draw
from flowc.report.subject import Named
from flowc.report.verdict import Verdict

_HERE = Path(__file__).parent


def render(subject: Named, facts: Mapping[str, Any], verdict: Verdict) -> str:
    """The page. `facts` as `flowc.report.facts` gives them; `verdict` says what was checked for this page."""
    script = (_HERE / "page.js").read_text(encoding="utf-8")
    pictures = [draw(graph) for graph in subject.compiled.graphs.values()]
    environment = Environment(
        autoescape=True, loader=FileSystemLoader(_HERE), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html").render(
        facts=facts,
        about=f"{facts['kind']} · {facts['weights'] or 'weights not at hand'} · spec {facts['spec_sha256'][:12]}",
        cards=_cards(facts),
        categories=get_args(Category),
        costs=_costs(facts),
        details={key: about for picture in pictures for key, about in _details(picture)},
        passes=_passes(subject),
        pictures=pictures,
        ports={
            phase: [[n, d.removesuffix("s"), t] for d in ("inputs", "outputs") for n, t in graph[d].items()]
            for phase, graph in facts["graphs"].items()
        },
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        sizes=", ".join(f"{k} {v}" for k, v in facts["sizes"].items()),
        style=_style(),
        verdict=verdict,
        checks=_check_rows(verdict.checks),
        version=__version__,
    )


def _style() -> str:
    colours = "".join(f"svg .box.{name} rect{{fill:var(--{name})}}" for name in get_args(Category))
    return (_HERE / "page.css").read_text(encoding="utf-8").replace("svg .box.found", f"{colours}\nsvg .box.found", 1)


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


# Details of a box


def _details(picture: Picture) -> Iterator[tuple[str, dict[str, Any]]]:
    """What is shown of each box of a picture, by the box's number."""
    for number, card in enumerate(picture.cards):
        for place, box in enumerate(card.boxes):
            yield f"{picture.phase}.{number}.{place}", _about(card, box)


def _about(card: Card, box: Box) -> dict[str, Any]:
    facts: list[tuple[str, str]] = []
    if box.port is not None:
        value = box.port.value
        title = box.port.name
        facts += [("kind", box.port.kind), ("type", str(value.type)), ("value", value.name)]
        facts += [("made in", box.port.other)] if box.port.other else []
    else:
        node = box.node
        assert node is not None, "a box is a port or an operator"
        title = f"{node.op.name} {box.text}" if box.text != node.op.name.replace("_", " ") else node.op.name
        facts += [("stage", node.origin.stage), ("kind of stage", node.origin.kind)]
        facts += [("in the spec", str(node.origin.span))] if node.origin.span is not None else []
        facts += [(name, str(value)) for name, value in node.op.attributes().items()]
        for name, value in zip(node.op.operands, node.inputs, strict=False):
            if value is not None:
                facts.append((f"takes {name}", f"{value.name}: {value.type}"))
        facts += [("gives", f"{value.name}: {value.type}") for value in node.outputs]
    if card.part.times > 1:
        facts.append(("stands for", f"{card.part.times} equal layers, {card.part.title}; names are of the first"))
    return {"title": title, "facts": facts}


# Tables


def _costs(facts: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for phase, graph in facts["graphs"].items():
        most = max([s["macs"] for s in graph["stages"]] + [1])
        totals = [_cost(f"{label} passes", graph[label], None) for label in ("before", "after")]
        found[phase] = [*totals, *(_cost(s["stage"], s, s["macs"] / most) for s in graph["stages"])]
    return found


def _cost(name: str, cost: Mapping[str, Any], share: float | None) -> dict[str, Any]:
    return {
        "name": name,
        "total": share is None,
        "bar": max(1, round(90 * (share or 0))),
        "macs": _short(cost["macs"]),
        "rest": [_short(cost["parameters"]), _bytes(cost["bytes_read"]), _bytes(cost["cache_bytes"])],
    }


def _passes(subject: Named) -> list[list[str]]:
    summaries = pass_summaries()
    rows: list[list[str]] = []
    for report in explain(subject.compiled.audits):
        reasons = "; ".join(sorted({m.reason for m in report.misses})) or "–"
        rows.append([report.name, f"{report.fired} of {report.candidates}", summaries[report.name], reasons])
    return rows


def _short(number: float) -> str:
    for size, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:g}"


def _bytes(number: int) -> str:
    return "–" if not number else _short(number).rstrip() + ("B" if number >= 1000 else " B")


def _check_rows(checks: Sequence[Mapping[str, Any]]) -> list[list[object]]:
    rows: list[list[object]] = []
    for check in checks:
        passed = bool(check.get("passed", True))
        shown = [(k, v) for k, v in check.items() if k not in ("name", "graph", "passed") and v not in (None, "")]
        rest = ", ".join(_fact(k, v) for k, v in shown)
        rows.append([check.get("name"), check.get("graph", ""), passed, rest])
    return rows


def _fact(name: str, value: object) -> str:
    text = f"{value:.2g}" if isinstance(value, float) else str(value)
    return text if name == "detail" else f"{name} {text}"
