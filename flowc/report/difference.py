"""What differs between two specs or builds: spec, graphs by stage, weights, numbers; never by the names of nodes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from flowc.build.lock import leaves
from flowc.ir.canonical import canonical
from flowc.ir.graph import Graph, Node
from flowc.report.subject import Named
from flowc.spec.spec import Phase

LEVELS = ("spec", "graphs", "weights", "numbers")


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that differs: at which level, where, and what it is on either side."""

    level: str
    at: str
    a: str
    b: str

    def as_json(self) -> dict[str, str]:
        """The difference as plain values."""
        return {"level": self.level, "at": self.at, "a": self.a, "b": self.b}


Progress = Callable[[str, int, int], None]
"""What is being compared, how much of it was, and how much there is."""


def differences(a: Named, b: Named, *, numbers: bool = True, progress: Progress | None = None) -> list[Difference]:
    """Everything that differs. Weights and numbers are compared where both sides have them at hand."""
    found = list(_specs(a, b))
    found += _graphs(a, b)
    found += _weights(a, b, progress)
    if numbers and a.is_build and b.is_build:
        found += _numbers(a, b)
    return found


def _specs(a: Named, b: Named) -> Iterator[Difference]:
    x, y = a.compiled.resolved_spec, b.compiled.resolved_spec
    for at in sorted({*leaves(x), *leaves(y)}):
        mine, theirs = leaves(x).get(at), leaves(y).get(at)
        if mine != theirs:
            yield Difference("spec", at, "–" if mine is None else mine, "–" if theirs is None else theirs)
    for name in ("target", "options", "skip_passes"):
        mine, theirs = (repr(getattr(s.compiled.request, name)) for s in (a, b))
        if mine != theirs:
            yield Difference("spec", f"({name})", mine, theirs)


def _graphs(a: Named, b: Named) -> Iterator[Difference]:
    phases: list[Phase] = sorted({*a.compiled.graphs, *b.compiled.graphs})
    for phase in phases:
        x, y = a.compiled.graphs.get(phase), b.compiled.graphs.get(phase)
        if x is None or y is None:
            yield Difference("graphs", phase, "–" if x is None else "there", "–" if y is None else "there")
        elif canonical(x) != canonical(y):
            yield from _stages(phase, x, y)


def _stages(phase: str, x: Graph, y: Graph) -> Iterator[Difference]:
    """Stages whose operators differ; where all are alike, what differs is how they are joined."""
    mine, theirs = _by_stage(x), _by_stage(y)
    count = 0
    for stage in dict.fromkeys([*mine, *theirs]):
        p, q = mine.get(stage, []), theirs.get(stage, [])
        if p != q:
            count += 1
            yield Difference("graphs", f"{phase}: {stage}", _only(p, q), _only(q, p))
    if count == 0:
        yield Difference("graphs", phase, "the same operators,", "joined in another way")


def _by_stage(graph: Graph) -> dict[str, list[str]]:
    stages: dict[str, list[str]] = {}
    for node in graph.nodes:
        stages.setdefault(node.origin.stage, []).append(_text(node))
    return stages


def _text(node: Node) -> str:
    weights = [v.weight.key for v in node.inputs if v is not None and v.weight is not None]
    facts = [f"{k} = {v!r}" for k, v in sorted(node.op.attributes().items())]
    types = ", ".join(str(v.type) for v in node.outputs)
    return f"{node.op.name}({', '.join([*weights, *facts])}) : {types}"


def _only(mine: list[str], theirs: list[str]) -> str:
    return "; ".join(line for line in mine if line not in theirs) or "–"


def _weights(a: Named, b: Named, progress: Progress | None) -> Iterator[Difference]:
    """Tensors that are not on both sides, have other shapes, or (where both files are there) other values."""
    x, y = a.compiled.usage.tensors, b.compiled.usage.tensors
    names = list(dict.fromkeys([*x, *y]))
    for done, name in enumerate(names):
        if progress is not None:
            progress("comparing weights", done, len(names))
        if name not in x or name not in y:
            yield Difference("weights", name, _shape(x.get(name)), _shape(y.get(name)))
        elif x[name][0] != y[name][0]:
            yield Difference("weights", name, _shape(x[name]), _shape(y[name]))
        else:
            hashes = [_digest(side, name) for side in (a, b)]
            if None not in hashes and hashes[0] != hashes[1]:
                yield Difference("weights", name, f"sha256 {str(hashes[0])[:16]}", f"sha256 {str(hashes[1])[:16]}")


def _shape(entry: tuple[tuple[int, ...], Any] | None) -> str:
    return "–" if entry is None else str(list(entry[0]))


def _digest(side: Named, name: str) -> str | None:
    """Hash of a tensor's values as float32, so that formats compare by what they mean; None without the file."""
    checkpoint = side.compiled.checkpoint
    if checkpoint is None:
        return None
    values = np.ascontiguousarray(checkpoint.read(name, None))
    return hashlib.sha256(values.tobytes()).hexdigest()


def _numbers(a: Named, b: Named) -> Iterator[Difference]:
    """Outputs of both builds for the same seeded inputs, the past of every later call taken from the first build."""
    if a.manifest is None or b.manifest is None:
        return
    from flowc.verify.built_model import run
    from flowc.verify.quick import calls
    from flowc.verify.rebuild import subject_of

    mine, theirs = subject_of(a.manifest, a.compiled), subject_of(b.manifest, b.compiled)
    results: dict[str, tuple[Any, Mapping[str, Any]]] = {}
    for call in calls(mine, cast("Any", results)):
        found = mine.run(call)
        results[call.label] = (call, found)
        other = b.compiled.graphs.get(call.phase)
        if other is None or {v.name for v in other.inputs} != set(call.feeds):
            yield Difference("numbers", call.label, f"takes {', '.join(sorted(call.feeds))}", "takes other inputs")
            continue
        given = run(theirs.session(call.phase), call)
        kinds = {o.name: o.value.type for o in mine.graphs[call.phase].outputs}
        alike = {n: a for n, a in found.items() if n in given and given[n].shape == a.shape}
        off = {d.name for d in mine.outputs_differ(call, given, alike, found) if not d.good}
        for name in dict.fromkeys([*found, *given]):
            if name not in found or name not in given or found[name].shape != given[name].shape:
                sides = [str(list(r[name].shape)) if name in r else "–" for r in (found, given)]
                yield Difference("numbers", f"{call.label}: {name}", *sides)
                continue
            keep = np.broadcast_to(call.valid(kinds[name]), found[name].shape)
            apart = float(np.abs(found[name] - given[name])[keep].max(initial=0.0)) if keep.any() else 0.0
            if name in off:
                yield Difference("numbers", f"{call.label}: {name}", "0", f"max difference {apart:.3g}")
