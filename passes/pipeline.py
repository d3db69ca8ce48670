"""The pipeline: which passes run, in which order, and what each of them did."""

from __future__ import annotations

from collections.abc import Callable, Collection

from flowc.errors import SpecError, nearest
from flowc.ir.graph import Graph, prune
from flowc.ir.verify import verify
from flowc.passes.audit import Audit, Context, Pass
from flowc.passes.choose_kernels import choose_kernels
from flowc.passes.drop_identities import drop_identities
from flowc.passes.fold_rope import fold_rope
from flowc.passes.fold_weights import fold_weights
from flowc.passes.keep_last_row import keep_last_row
from flowc.passes.pack_projections import pack_projections
from flowc.passes.share_common import share_common
from flowc.passes.share_masks import share_masks
from flowc.passes.turn_experts import turn_experts

__all__ = ["PIPELINE", "Audit", "Context", "Pass", "run"]

PIPELINE: tuple[Pass, ...] = (
    share_common,
    drop_identities,
    fold_rope,
    fold_weights,
    keep_last_row,
    choose_kernels,
    share_masks,
    turn_experts,
    pack_projections,
)


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
