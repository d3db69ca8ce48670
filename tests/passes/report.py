"""Writes the generated parts of docs/passes.md: what each pass is, and what it does to real models.

    python -m tests.passes.report            # both; needs SmolLM2, Gemma 3 270M and MiniLM in the cache

Multiply-adds and bytes are those of the cost model (`flowc inspect`), for a prompt of 128 tokens or one token at past
128; onnxruntime is not asked.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from flowc.build.compiled import Request
from flowc.compile import compile_file
from flowc.importers import import_checkpoint
from flowc.ir.cost import Cost, costs, sizes_of
from flowc.ir.graph import Graph
from flowc.passes.explain import explain
from flowc.passes.pipeline import PIPELINE
from flowc.report.facts import Steps
from tests.bench.measure import table
from tests.blocks import Block
from tests.oracle_io import COMMITTED, ROOT

PAGE = ROOT / "docs" / "passes.md"
PASSES = Block(PAGE, "<!-- passes: written by `make gen` -->", "<!-- end of passes -->")
FIGURES = Block(PAGE, "<!-- figures: written by `make gen-full` -->", "<!-- end of figures -->")
CACHE = Path(os.environ.get("FLOWC_CACHE") or Path.home() / ".cache" / "flowc") / "models"
MODELS = {
    "SmolLM2 135M": CACHE / "smollm2-hf",
    "Gemma 3 270M": CACHE / "gemma3-270m" / "gemma-3-270m-Q4_K_M.gguf",
    "MiniLM-L6": CACHE / "minilm",
    "DINOv2 (the small oracle `dinov2_swiglu`)": COMMITTED / "dinov2_swiglu",
}
TOKENS = 128
IMAGE = {"height": 28, "width": 42}


def cost_of(graph: Graph) -> Cost:
    """Totals of a graph at this page's sizes."""
    return costs(graph, sizes_of(graph, 1, TOKENS, TOKENS, **IMAGE)).total


def model_part(name: str, source: Path) -> str:
    """What every pass did to one model: a table a graph."""
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "model.yaml"
        spec.write_text(import_checkpoint(source).text(Path(folder)), encoding="utf-8")
        steps = Steps()
        compiled = compile_file(spec, Request(), steps)
    reports = {r.name: r for r in explain(compiled.audits)}
    parts = [f"### {name}", ""]
    for phase, graphs in steps.graphs.items():
        rows = [(phase, "fired", "operators", "MB read", "million multiply-adds")]
        before = cost_of(graphs["expand"])
        rows.append(("before", "", *_figures(before, None)))
        for step in (p.__name__ for p in PIPELINE):
            audit = compiled.audits[phase].get(step)
            if audit is None or not audit.candidates:
                continue
            after = cost_of(graphs[step]) if step in graphs else before
            rows.append((step, f"{len(audit.fired)} of {audit.candidates}", *_figures(after, before)))
            before = after
        rows.append(("after", "", *_figures(before, None)))
        parts += ["```", table(rows), "```", ""]
    misses = [f"- `{r.name}` at `{m.at}`: {m.reason}" for r in reports.values() for m in r.misses]
    return "\n".join([*parts, *(["What did not fire:", "", *misses, ""] if misses else [])])


def _figures(cost: Cost, before: Cost | None) -> tuple[str, str, str]:
    """Operators, bytes and multiply-adds; as differences where there is a before."""
    if before is None:
        return str(cost.operators), f"{cost.bytes_read / 1e6:.1f}", f"{cost.macs / 1e6:.1f}"
    change = (cost.operators - before.operators, cost.bytes_read - before.bytes_read, cost.macs - before.macs)
    return (
        f"{change[0]:+d}" if change[0] else "",
        f"{change[1] / 1e6:+.1f}" if abs(change[1]) >= 5e4 else "",
        f"{change[2] / 1e6:+.1f}" if abs(change[2]) >= 5e4 else "",
    )


def passes_part() -> str:
    """The pipeline in order, as each pass's own file describes it."""
    parts: list[str] = []
    for step in PIPELINE:
        doc = (sys.modules[step.__module__].__doc__ or "").strip()
        summary, _, rest = doc.partition("\n\n")
        blocks = re.sub(r"(?m)^(    .*(?:\n(?:    .*)?)*)", lambda m: f"```\n{inspect.cleandoc(m[1])}\n```\n", rest)
        parts += [f"### {step.__name__}", "", summary, "", blocks.strip(), ""]
    return "\n".join(parts)


def figures(models: Mapping[str, Path]) -> str:
    """What the passes did to each model."""
    return "\n".join(model_part(name, source) for name, source in models.items())


def missing() -> list[str]:
    """Models that are not in the cache."""
    return [name for name, source in MODELS.items() if not source.exists()]


def stale_figures() -> list[str]:
    """What a look at the page alone can tell: models that it lacks, and passes that are gone."""
    text = FIGURES.read()
    lacks = [f"docs/passes.md has no figures of {name}" for name in MODELS if f"### {name}\n" not in text]
    rows = set(re.findall(r"(?m)^(\w+) +\d+ of \d+", text)) | set(re.findall(r"(?m)^- `(\w+)` at", text))
    gone = sorted(rows - {step.__name__ for step in PIPELINE})
    return lacks + [f"docs/passes.md has figures of the pass '{name}', which is gone" for name in gone]


def main() -> int:
    """Exit codes: 0 written, 4 a model is not in the cache."""
    PASSES.write(passes_part())
    if missing():
        print(f"not in the cache: {', '.join(missing())} (examples/fetch.py)", file=sys.stderr)
        return 4
    FIGURES.write(figures(MODELS))
    return 0


if __name__ == "__main__":
    sys.exit(main())
