"""The report of a spec or a build: one HTML file that needs no network, no server and no script."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any, get_args

from flowc import __version__
from flowc.ir.traits import Category
from flowc.passes.explain import explain
from flowc.report.drawing import draw
from flowc.report.subject import Named

STYLE = """
:root{--ink:#1d2433;--soft:#667085;--line:#d8dde6;--paper:#fff;--ground:#f4f6f9;--matrix:#3b6fd4;
--attention:#d9772b;--norm:#2f9268;--rope:#8a56c2;--table:#1f8ea3;--mask:#b3467f;--custom:#7a6a2f;--step:#7b8496}
@media(prefers-color-scheme:dark){:root{--ink:#e7ebf3;--soft:#98a2b3;--line:#343b49;--paper:#1b202b;
--ground:#12161e}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1180px;margin:0 auto;padding:28px 20px 60px}
h1{margin:0;font-size:28px}
h2{margin:36px 0 12px;font-size:19px}
.soft{color:var(--soft)}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(150px,1fr));gap:12px;margin:20px 0}
.card{background:var(--paper);border:1px solid var(--line);border-radius:12px;padding:12px 16px}
.card b{display:block;font-size:20px}
.sheet{background:var(--paper);border:1px solid var(--line);border-radius:12px;padding:16px;overflow:auto}
table{border-collapse:collapse;width:100%;font-size:14px}
th,td{padding:5px 10px;text-align:right;border-bottom:1px solid var(--line);white-space:nowrap;
font-variant-numeric:tabular-nums}
th:first-child,td:first-child{text-align:left;white-space:normal}
th{color:var(--soft);font-weight:600}
.bar{display:inline-block;height:9px;border-radius:4px;background:var(--matrix);margin-right:8px;
vertical-align:middle}
.good{color:var(--norm)}
.bad{color:#c8372d;font-weight:600}
details{margin:8px 0}
summary{cursor:pointer;font-weight:600}
.legend span{display:inline-block;margin-right:16px}
.legend i{display:inline-block;width:12px;height:12px;border-radius:3px;margin-right:6px;vertical-align:-1px}
svg{display:block;margin:0 auto;font:12px system-ui,sans-serif}
svg .part{fill:var(--ground);stroke:var(--line)}
svg .title{fill:var(--soft);font-weight:600}
svg .times{fill:var(--attention);font-weight:700;text-anchor:end;font-size:14px}
svg .op rect{fill:var(--step)}
svg .op text,svg .port text{fill:#fff;text-anchor:middle;font-weight:500}
svg .data,svg .skip,svg .flow,svg .enter{fill:none;stroke:var(--soft);stroke-width:1.3}
svg .skip{stroke-dasharray:4 3}
svg .enter{stroke-opacity:.6}
svg .port rect{fill:var(--ink)}
svg .port text{fill:var(--paper)}
@media print{body{background:#fff}.sheet,.card{break-inside:avoid}}
"""


def render(subject: Named, facts: Mapping[str, Any], checks: Sequence[Mapping[str, Any]]) -> str:
    """The page. `facts` as `flowc.report.facts` gives them; `checks` as a build's check does, empty when not run."""
    colours = "".join(f"svg .{f} rect{{fill:var(--{f})}}" for f in get_args(Category))
    body = [
        _head(facts),
        _flow(subject),
        _costs(facts),
        _passes(subject),
        _checks(checks, facts),
        _ports(facts),
    ]
    title = f"<title>{escape(facts['name'])}: flowc report</title>"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{title}'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><style>{STYLE}{colours}</style></head>'
        f"<body><main>{''.join(body)}<p class=soft>flowc {__version__}</p></main></body></html>\n"
    )


def _head(facts: Mapping[str, Any]) -> str:
    first = next(iter(facts["graphs"].values()))
    cards = [
        ("parameters", _short(first["after"]["parameters"])),
        ("graphs", ", ".join(facts["graphs"])),
        ("target", facts["target"]),
        ("context", facts["context_length"] or "–"),
        ("assumes", facts["assume"] if facts["assume"] != "none" else "nothing"),
        ("on disk", _bytes(sum(f["bytes"] for f in facts.get("files", ())))),
    ]
    shown = "".join(
        f"<div class=card><span class=soft>{escape(k)}</span><b>{escape(str(v))}</b></div>" for k, v in cards
    )
    what = f"{facts['kind']} · {facts['weights'] or 'weights not at hand'} · spec {facts['spec_sha256'][:12]}"
    return f"<h1>{escape(facts['name'])}</h1><div class=soft>{escape(what)}</div><div class=cards>{shown}</div>"


def _flow(subject: Named) -> str:
    legend = "".join(
        f'<span><i style="background:var(--{family})"></i>{family}</span>' for family in get_args(Category)
    )
    graphs = "".join(
        _folded(phase, draw(graph), opened=i == 0) for i, (phase, graph) in enumerate(subject.compiled.graphs.items())
    )
    return f"<h2>The flow</h2><p class='legend soft'>{legend}</p>{graphs}"


def _costs(facts: Mapping[str, Any]) -> str:
    sizes = ", ".join(f"{k} {v}" for k, v in facts["sizes"].items())
    out = [f"<h2>What it costs</h2><p class=soft>One run, {escape(sizes)}.</p>"]
    for phase, graph in facts["graphs"].items():
        most = max([s["macs"] for s in graph["stages"]] + [1])
        totals = [_cost(f"<b>{label} passes</b>", graph[label]) for label in ("before", "after")]
        rows = [_cost(escape(s["stage"]), s, _bar(s["macs"] / most)) for s in graph["stages"]]
        head = ["stage", "multiply-adds", "parameters", "bytes read", "cache a token"]
        out.append(_folded(phase, _table(head, [*totals, *rows])))
    return "".join(out)


def _cost(label: str, cost: Mapping[str, Any], bar: str = "") -> list[str]:
    memory = [_bytes(cost["bytes_read"]), _bytes(cost["cache_bytes"])]
    return [label, bar + _short(cost["macs"]), _short(cost["parameters"]), *memory]


def _passes(subject: Named) -> str:
    rows: list[list[str]] = []
    for report in explain(subject.compiled.audits):
        reasons = sorted({m.reason for m in report.misses})
        shown = "<br>".join(escape(r) for r in reasons) or "–"
        rows.append([escape(report.name), f"{report.fired} of {report.candidates}", shown])
    return f"<h2>Passes</h2><div class=sheet>{_table(['pass', 'fired', 'why not elsewhere'], rows)}</div>"


def _checks(checks: Sequence[Mapping[str, Any]], facts: Mapping[str, Any]) -> str:
    if not checks:
        note = f"Not checked for this report; the build was checked: {facts.get('verify', 'no build')}."
        return f"<h2>Checks</h2><p class=soft>{escape(note)}</p>"
    rows: list[list[str]] = []
    for check in checks:
        passed = bool(check.get("passed", True))
        mark = f"<span class={'good' if passed else 'bad'}>{'passed' if passed else 'FAILED'}</span>"
        rest = ", ".join(f"{k} {v}" for k, v in check.items() if k not in ("name", "passed") and v not in (None, ""))
        rows.append([escape(str(check.get("name"))), mark, escape(rest)])
    return f"<h2>Checks</h2><div class=sheet>{_table(['check', 'verdict', 'what was seen'], rows)}</div>"


def _ports(facts: Mapping[str, Any]) -> str:
    out = ["<h2>Inputs and outputs</h2>"]
    for phase, graph in facts["graphs"].items():
        rows = [[escape(n), d, escape(t)] for d in ("inputs", "outputs") for n, t in graph[d].items()]
        out.append(_folded(phase, _table(["name", "", "type"], rows)))
    return "".join(out)


def _folded(title: str, content: str, *, opened: bool = False) -> str:
    mark = " open" if opened else ""
    return f"<details{mark}><summary>{escape(title)}</summary><div class=sheet>{content}</div></details>"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{escape(h)}</th>' for h in head)}</tr>{lines}</table>"


def _bar(share: float) -> str:
    return f'<i class=bar style="width:{max(1, round(90 * share))}px"></i>'


def _short(number: float) -> str:
    for size, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if number >= size:
            return f"{number / size:.3g}{unit}"
    return f"{number:g}"


def _bytes(number: int) -> str:
    return "–" if not number else _short(number).rstrip() + ("B" if number >= 1000 else " B")
