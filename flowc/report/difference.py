"""What differs between two specs or builds: spec, graphs by stage, weights, numbers; never by the names of nodes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, cast

import numpy as np

from flowc.errors import FlowError
from flowc.ir.canonical import canonical
from flowc.ir.graph import Graph, Node
from flowc.report.apart import Comparison, Difference, NotCompared, Progress
from flowc.report.subject import Named
from flowc.report.weights_apart import weights_apart
from flowc.text.changes import aligned, changes, value_text

Found = Iterator[Difference | NotCompared]


def compare(a: Named, b: Named, *, numbers: bool = True, progress: Progress | None = None) -> Comparison:
    """Everything that differs, and everything that could not be compared.

    Weights are compared where both sides have them at hand. Numbers are those of builds; of specs, and where they are
    not asked for, equal graphs with equal weights give equal ones.
    """
    found: list[Difference | NotCompared] = [*_specs(a, b), *_graphs(a, b)]
    damaged = {level: gap for level in ("weights", "numbers") if (gap := _damaged(a, b, level)) is not None}
    found += [damaged["weights"]] if damaged else weights_apart(a, b, progress)
    if not a.is_build or not b.is_build:
        found.append(NotCompared("numbers", "outputs", "only builds are run, and these are not two", leaves_open=False))
    elif not numbers:
        found.append(NotCompared("numbers", "outputs", "--no-numbers", leaves_open=False))
    else:
        found += [damaged["numbers"]] if damaged else _numbers(a, b)
    return Comparison(
        [one for one in found if isinstance(one, Difference)], [one for one in found if isinstance(one, NotCompared)]
    )


def _damaged(a: Named, b: Named, level: str) -> NotCompared | None:
    """Why files of a build are not what it wrote, so that no statement about the build can be made with them."""
    for side in (a, b):
        for phase in side.manifest.graphs if side.manifest is not None else ():
            try:
                assert side.manifest is not None
                side.manifest.graph_path(phase)
            except FlowError as error:
                return NotCompared(level, str(side.path), error.diagnostics[0].message)
    return None


def _specs(a: Named, b: Named) -> Found:
    for change in changes(a.compiled.resolved_spec, b.compiled.resolved_spec):
        yield Difference("spec", change.at, value_text(change.a), value_text(change.b))
    for name in ("target", "options", "skip_passes"):
        mine, theirs = (repr(getattr(s.compiled.request, name)) for s in (a, b))
        if mine != theirs:
            yield Difference("spec", f"({name})", mine, theirs)


def _graphs(a: Named, b: Named) -> Found:
    phases: list[str] = sorted({*a.compiled.graphs, *b.compiled.graphs})
    for phase in phases:
        x, y = a.compiled.graphs.get(phase), b.compiled.graphs.get(phase)
        if x is None or y is None:
            yield Difference("graphs", phase, "–" if x is None else "there", "–" if y is None else "there")
        elif canonical(x) != canonical(y):
            yield from _stages(phase, x, y)


_Stage = tuple[str, tuple[str, ...]]
"""A stage's path, and its operators as text."""


def _stages(phase: str, x: Graph, y: Graph) -> Found:
    """Stages whose operators differ; where all are alike, what differs is how they are joined."""
    mine, theirs = _by_stage(x), _by_stage(y)
    pairs = aligned([_ByOperators(s) for s in mine], [_ByOperators(s) for s in theirs], _alike)
    apart = [(p, q) for p, q in pairs if p is None or q is None or p != q]
    for p, q in apart:
        lines = [list(side.stage[1]) if side is not None else [] for side in (p, q)]
        names = dict.fromkeys(side.stage[0] for side in (p, q) if side is not None)
        yield Difference("graphs", f"{phase}: {' -> '.join(names)}", *_only(*lines))
    if not apart:
        yield Difference("graphs", phase, "the same operators,", "joined in another way")


class _ByOperators:
    """A stage that equals another by what it computes: a stage before it that went changes its number only."""

    __slots__ = ("facts", "kind", "stage")

    def __init__(self, stage: _Stage) -> None:
        self.stage = stage
        self.facts = frozenset(stage[1])
        self.kind = re.sub(r"_\d+$", "", stage[0].rsplit(".", 1)[-1])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByOperators) and (self.kind, self.stage[1]) == (other.kind, other.stage[1])

    def __hash__(self) -> int:
        return hash((self.kind, self.stage[1]))


def _alike(x: _ByOperators, y: _ByOperators) -> float:
    if x.kind != y.kind:
        return -1.0
    return len(x.facts & y.facts) / (len(x.facts | y.facts) + 1)


def _by_stage(graph: Graph) -> list[_Stage]:
    stages: dict[str, list[str]] = {}
    for node in graph.nodes:
        stages.setdefault(node.origin.stage, []).append(_text(node))
    return [(stage, tuple(lines)) for stage, lines in stages.items()]


def _text(node: Node) -> str:
    weights = [v.weight.key for v in node.inputs if v is not None and v.weight is not None]
    facts = [f"{k} = {v!r}" for k, v in sorted(node.op.attributes().items())]
    types = ", ".join(str(v.type) for v in node.outputs)
    return f"{node.op.name}({', '.join([*weights, *facts])}) : {types}"


def _versions(x: str, y: str) -> float:
    """Operators of one name are versions of one another."""
    return 0.0 if x.partition("(")[0] == y.partition("(")[0] else -1.0


def _only(mine: list[str], theirs: list[str]) -> tuple[str, str]:
    """The operators of a stage that its other version lacks; an operator that stands there twice counts twice."""
    apart = [(x, y) for x, y in aligned(mine, theirs, _versions) if x != y]
    sides = ["; ".join(line for line in side if line is not None) or "–" for side in zip(*apart, strict=True)]
    return (sides[0], sides[1]) if sides else ("the same operators,", "in another stage")


def _numbers(a: Named, b: Named) -> Found:
    """Outputs of both builds for the same seeded inputs, the past of every later call taken from the first build."""
    from flowc.verify.built_model import run
    from flowc.verify.quick import calls
    from flowc.verify.rebuild import subject_of

    assert a.manifest is not None
    assert b.manifest is not None
    mine, theirs = subject_of(a.manifest, a.compiled), subject_of(b.manifest, b.compiled)
    results: dict[str, tuple[Any, Mapping[str, Any]]] = {}
    for call in (call for part in mine.parts for call in calls(part, cast("Any", results))):
        found = mine.run(call)
        results[call.label] = (call, found)
        other = b.compiled.graphs.get(call.phase)
        if other is None or {v.name: v.type for v in other.inputs} != {
            v.name: v.type for v in mine.graphs[call.phase].inputs
        }:
            yield NotCompared("numbers", call.label, "the two graphs do not take the same inputs")
            continue
        given = run(theirs.session(call.phase), call)
        kinds = {o.name: o.value.type for o in mine.graphs[call.phase].outputs}
        alike = {n: a for n, a in found.items() if n in given and given[n].shape == a.shape}
        off = {d.name for d in mine.outputs_differ(call, given, alike, found) if not d.good}
        for name in dict.fromkeys([*found, *given]):
            if name not in alike:
                sides = [str(list(r[name].shape)) if name in r else "–" for r in (found, given)]
                yield Difference("numbers", f"{call.label}: {name}", *sides)
                continue
            keep = np.broadcast_to(call.valid(kinds[name]), found[name].shape)
            apart = float(np.abs(found[name] - given[name])[keep].max(initial=0.0)) if keep.any() else 0.0
            if name in off:
                yield Difference("numbers", f"{call.label}: {name}", "0", f"max difference {apart:.3g}")
