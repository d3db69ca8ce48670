"""The pipeline: which passes run, in which order, and what each of them did."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass, field

from flowc.errors import SpecError, nearest
from flowc.ir.graph import Graph, prune
from flowc.ir.verify import verify
from flowc.lowering.targets import Target


@dataclass(slots=True)
class Audit:
    """What a pass did to a graph: places where it fired, and places where it could not, with the reason."""

    fired: list[str] = field(default_factory=list[str])
    missed: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    @property
    def candidates(self) -> int:
        """All places that the pass looked at in earnest."""
        return len(self.fired) + len(self.missed)


@dataclass(frozen=True, slots=True)
class Context:
    """What passes may know beside the graph: facts of the target and of the build."""

    target: Target
    assume: str
    context_length: int | None


Pass = Callable[[Graph, Context, Audit], Graph]

PIPELINE: tuple[Pass, ...] = ()


def run(
    graph: Graph, context: Context, skip: Collection[str] = (), watch: Callable[[str, Graph], None] | None = None
) -> tuple[Graph, dict[str, Audit]]:
    """Run the pipeline on a verified graph; returns the result and the audit of each pass by name.

    `watch` sees the graph after each pass that changed it. Raises SpecError for a `skip` that names no pass.
    """
    names = [p.__name__ for p in PIPELINE]
    for name in skip:
        if name not in names:
            raise SpecError.of(
                "unknown-pass", f"there is no pass '{name}'", hint=nearest(name, names) or f"passes: {', '.join(names)}"
            )
    audits: dict[str, Audit] = {}
    for step in PIPELINE:
        if step.__name__ in skip:
            continue
        audit = audits[step.__name__] = Audit()
        before, graph = graph, prune(step(graph, context, audit))
        if graph is not before:
            verify(graph, step.__name__)
            if watch is not None:
                watch(step.__name__, graph)
    return graph, audits
