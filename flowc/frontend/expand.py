"""Stages run in order: each is bound, given the builder, and its operators carry its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from flowc.errors import Diagnostics
from flowc.frontend.bind import bind
from flowc.frontend.builder import Builder
from flowc.frontend.reporter import Failed, Site
from flowc.frontend.stage import Composite, Stage, Stages
from flowc.frontend.usage import Usage
from flowc.ir.graph import Value
from flowc.text.source import Node

MAX_STAGES = 20_000
"""Stages of a phase, repeats written out: ten times what the deepest models need in the smallest parts."""


class Expander:
    """Runs the stages of one phase against its builder."""

    def __init__(self, builder: Builder, usage: Usage, problems: Diagnostics) -> None:
        self._builder = builder
        self._usage = usage
        self._problems = problems
        self._indices: dict[str, int] = {}
        self._count = 0

    def run(self, stages: Stages | Sequence[Node], x: Value, label: str = "", **indices: int) -> Value:
        """Expand a list of stages in order; `indices` are visible to them as `$name` and `{name}`."""
        reporter, spec = self._builder.reporter, self._builder.spec
        outer, outer_indices = reporter.site, self._indices
        self._indices = {**outer_indices, **indices}
        self.expect(1)
        self._count += 1
        path = (*outer.path, label) if label else outer.path
        counts: dict[str, int] = {}
        failed = False
        for node in stages.items if isinstance(stages, Stages) else stages:
            reporter.site = replace(outer, path=path)
            self.expect(1)
            self._count += 1
            bound = bind(node, spec, self._usage, self._indices, self._problems)
            if bound is None:
                failed = reporter.failed = True
                continue
            stage, kind = bound.stage, bound.stage.kind
            counts[kind] = counts.get(kind, 0) + 1
            step = kind if counts[kind] == 1 else f"{kind}_{counts[kind]}"
            reporter.site = Site((*path, step), kind, bound.span, bound.spans)
            ids = x is self._builder.inputs.get("input_ids") and x.dtype.startswith("int")
            reporter.ids = "int64[batch_size, tokens]" if ids else ""
            try:
                x = self.perform(stage, x)
            except Failed:
                failed = reporter.failed = True
        reporter.site, self._indices = outer, outer_indices
        if failed:
            raise Failed
        return x

    def perform(self, stage: Stage, x: Value) -> Value:
        """Let one stage work on the active value; gives the new one."""
        return stage.unfold(self._builder, x, self) if isinstance(stage, Composite) else stage.expand(self._builder, x)

    def expect(self, count: int) -> None:
        """End the expansion of a flow that is about to run too many stages more."""
        if self._count + count > MAX_STAGES:
            message = f"the flow has more than {MAX_STAGES} stages when its repeats are written out"
            self._problems.error("too-many-stages", message, self._builder.reporter.site.span)
            self._problems.raise_all()
