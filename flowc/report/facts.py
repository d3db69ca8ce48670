"""The facts of a spec or a build: graphs, sizes, versions, costs by stage, where operators run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from flowc.errors import CheckFailed
from flowc.ir.cost import Cost, Costs, costs, sizes_of
from flowc.ir.graph import Graph
from flowc.outside.foreign import foreign
from flowc.outside.runtime import onnxruntime, open_graph
from flowc.report.subject import Named
from flowc.targets.registry import target


def facts(subject: Named, sizes: Mapping[str, int], *, placement: bool = True) -> dict[str, Any]:
    """Everything about a spec or a build, as plain values.

    `sizes` are batch, sequence, past and the sizes of a spec's own symbols. Where operators run is asked of
    onnxruntime, for a build only.
    """
    compiled = subject.compiled
    aim = target(compiled.request.target)
    found: dict[str, Any] = {
        "name": compiled.spec.name,
        "kind": compiled.kind,
        "target": aim.name,
        "assume": compiled.request.options.assume,
        "logits": compiled.request.options.logits,
        "context_length": compiled.context_length,
        "spec_sha256": compiled.spec_sha256,
        "versions": {"opset": aim.opset, "ir": aim.ir_version, "onnxruntime": f">= {aim.min_onnxruntime}"},
        "weights": compiled.checkpoint.describe() if compiled.checkpoint is not None else None,
        "sizes": dict(sizes),
        "graphs": {},
    }
    for phase, graph in compiled.graphs.items():
        before, after = (_costs(g, sizes) for g in (compiled.expanded[phase], graph))
        found["graphs"][phase] = {
            "inputs": {v.name: str(graph.port_type(v)) for v in graph.inputs},
            "outputs": {o.name: str(graph.port_type(o.value)) for o in graph.outputs},
            "operators": dict(sorted(Counter(n.op.name for n in graph.nodes).items())),
            "before": _numbers(before.total),
            "after": _numbers(after.total),
            "stages": _stages(before, after),
        }
    if subject.manifest is not None:
        if compiled.checkpoint is None and subject.manifest.data:
            found["weights"] = f"as stored in {', '.join(record.file for record in subject.manifest.data)}"
        found["flowc"] = subject.manifest.raw.get("flowc")
        found["verify"] = subject.manifest.raw.get("verify")
        found["files"] = _files(subject)
        for phase in subject.manifest.graphs:
            if placement:
                found["graphs"][phase]["placement"] = placed(subject.manifest.graph_path(phase))
    return found


def complete(graph: Graph, sizes: Mapping[str, int]) -> dict[str, int]:
    """Sizes of all symbols of a graph; a spec's own are 1 where none is given."""
    known = sizes_of(graph, **{k: v for k, v in sizes.items() if k in ("batch", "sequence", "past")})
    for value in [*graph.inputs, *(v for n in graph.nodes for v in n.outputs)]:
        for dim in value.shape:
            for term in dim.split() if isinstance(dim, str) else ():
                if term.isidentifier():
                    known.setdefault(term, sizes.get(term, 1))
    return known


def _costs(graph: Graph, sizes: Mapping[str, int]) -> Costs:
    return costs(graph, complete(graph, sizes))


def _numbers(cost: Cost) -> dict[str, int]:
    return {k: v for k, v in asdict(cost).items() if isinstance(v, int)}


def _stages(before: Costs, after: Costs) -> list[dict[str, Any]]:
    """Costs of every stage after the passes and, under `before`, before them, in the order of the spec."""
    old, new = ({c.stage: c for c in found.stages} for found in (before, after))
    return [
        {**asdict(new.get(name, Cost(name, cost.kind))), "before": _numbers(old.get(name, Cost(name)))}
        for name, cost in {**old, **new}.items()
    ]


class Steps:
    """A watch of a compilation: keeps every graph as each pass that changed it left it."""

    def __init__(self) -> None:
        self.graphs: dict[str, dict[str, Graph]] = {}
        """By phase and by pass, in order; the first is 'expand', before any pass."""

    def __call__(self, phase: str, step: str, graph: Graph) -> None:
        """Keep a graph."""
        self.graphs.setdefault(phase, {})[step] = graph

    def changes(self, sizes: Mapping[str, int]) -> dict[str, dict[str, dict[str, int]]]:
        """What each pass added to the costs of each graph that it changed (less where negative), by pass and phase."""
        found: dict[str, dict[str, dict[str, int]]] = {}
        for phase, graphs in self.graphs.items():
            totals = {step: _numbers(_costs(graph, sizes).total) for step, graph in graphs.items()}
            for (_, old), (step, new) in pairwise(totals.items()):
                found.setdefault(step, {})[phase] = {k: new[k] - old[k] for k in new}
        return found


def _files(subject: Named) -> list[dict[str, Any]]:
    manifest = subject.manifest
    if manifest is None:
        return []
    records = [*manifest.graphs.values(), *manifest.data, *manifest.tokenizer]
    paths = [manifest.folder / r.file for r in records] + [manifest.path]
    return [{"file": p.name, "bytes": p.stat().st_size} for p in paths if p.is_file()]


def placed(file: Path) -> dict[str, dict[str, int]]:
    """Operators of a graph file as onnxruntime placed them: execution provider, operator, how many."""
    ort = onnxruntime()

    options = ort.SessionOptions()
    options.log_severity_level = 4  # errors are raised, and told by who catches them
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    with foreign(lambda why: CheckFailed.of("load-failed", f"onnxruntime does not load {file}: {why}")):
        session: Any = open_graph(str(file), options)
    found: dict[str, Counter[str]] = {}
    for part in session.get_provider_graph_assignment_info():
        for node in part.get_nodes():
            domain = f"{node.domain}." if node.domain else ""
            found.setdefault(part.ep_name, Counter())[f"{domain}{node.op_type}"] += 1
    return {provider: dict(sorted(operators.items())) for provider, operators in found.items()}
