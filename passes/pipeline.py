"""The pipeline: which passes run, in which order, and what each of them did."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection

from flowc.errors import SpecError, nearest
from flowc.ir.graph import Graph, prune
from flowc.ir.op import Level
from flowc.ir.verify import verify
from flowc.passes.assign_precision import assign_precision
from flowc.passes.audit import Audit, Context, Pass
from flowc.passes.drop_identities import drop_identities
from flowc.passes.eliminate_common_subexpressions import eliminate_common_subexpressions
from flowc.passes.fold_masks import fold_masks
from flowc.passes.fold_rope import fold_rope
from flowc.passes.fold_weights import fold_weights
from flowc.passes.fuse_attention import fuse_attention
from flowc.passes.fuse_projections import fuse_projections
from flowc.passes.hoist_token_selection import hoist_token_selection
from flowc.passes.select_kernels import select_kernels
from flowc.passes.transpose_experts import transpose_experts

__all__ = ["PIPELINE", "Audit", "Context", "Pass", "run"]

CORE: tuple[Pass, ...] = (
    eliminate_common_subexpressions,
    drop_identities,
    fold_rope,
    fold_weights,
    hoist_token_selection,
    fuse_projections,
    assign_precision,
)
"""What a model means, said more simply. Copies go first, so that later passes see one of each; ropes before weights,
since a folded table is a weight; tokens are chosen early, while attention is one operator; projections of one value are
joined once nothing moves in front of them. Element types come last, so that the others compute with weights in float32
and round once."""

CONVERSION: tuple[Pass, ...] = (fuse_attention, fold_masks, select_kernels)
"""From the core level to the kernel level. Attention goes first, since its kernel takes facts that a folded mask has
lost; `select_kernels` gives every operator that is left its kernel, and is never left out."""

KERNEL: tuple[Pass, ...] = (transpose_experts,)
"""How kernels are fed."""

PIPELINE: tuple[Pass, ...] = (*CORE, *CONVERSION, *KERNEL)


FORMER_NAMES = {
    "share_common": "eliminate_common_subexpressions",
    "keep_last_row": "hoist_token_selection",
    "choose_kernels": "fuse_attention",
    "share_masks": "fold_masks",
    "turn_experts": "transpose_experts",
    "pack_projections": "fuse_projections",
}
"""What passes were called before: still taken by `--no-pass`, by `expect:` and from manifests."""


def pass_names() -> list[str]:
    """The names of the passes that a build may leave out, in the order in which they run."""
    return [step.__name__ for step in PIPELINE if step is not select_kernels]


def pass_summaries() -> dict[str, str]:
    """What each pass does, in the first words of its module."""
    return {step.__name__: _first_words(sys.modules[step.__module__].__doc__ or "") for step in PIPELINE}


def _first_words(doc: str) -> str:
    return " ".join(doc.split("\n\n")[0].split()).rstrip(".:")


def current_name(name: str) -> str:
    """The name that a pass has now."""
    return FORMER_NAMES.get(name, name)


def run(
    graph: Graph, context: Context, skip: Collection[str] = (), watch: Callable[[str, Graph], None] | None = None
) -> tuple[Graph, dict[str, Audit]]:
    """Run the pipeline on a verified graph; returns the result and the audit of each pass by name.

    `watch` sees the graph after each pass that changed it. Raises SpecError for a `skip` that names no pass, and for
    stages that the target cannot run.
    """
    skipped = {current_name(name) for name in skip}
    known = pass_names()
    if select_kernels.__name__ in skipped:
        message = "the pass 'select_kernels' cannot be left out: no target runs what it starts from"
        raise SpecError.of("unknown-pass", message, hint=f"passes that can: {', '.join(known)}")
    for name in sorted(skipped.difference(known)):
        hint = nearest(name, known) or f"passes: {', '.join(known)}"
        raise SpecError.of("unknown-pass", f"there is no pass '{name}'", hint=hint)
    audits: dict[str, Audit] = {}
    pruned: Graph | None = None
    level: Level | None = "core"
    for step in PIPELINE:
        if step.__name__ in skipped:
            continue
        level = "kernel" if step is select_kernels else None if step in CONVERSION else level
        audit = audits[step.__name__] = Audit()
        before, made = graph, step(graph, context, audit)
        graph = pruned = made if made is pruned else prune(made)
        if graph is not before:
            verify(graph, level, step.__name__, before)
            if watch is not None:
                watch(step.__name__, graph)
    return graph, audits
