"""`--dump-ir` and `--dump-dir`: graphs as text, while they change."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from flowc.errors import SpecError, nearest
from flowc.ir.dump import dump
from flowc.outside.writing import claim, holds, write_whole
from flowc.passes import pipeline

if TYPE_CHECKING:
    from flowc.ir.graph import Graph

EXPAND = "expand"


class Dumps:
    """Watches a compilation. `after` is a pass, '' for the last one, or None for no output on stdout."""

    def __init__(self, after: str | None, folder: Path | None) -> None:
        steps = [EXPAND, *(step.__name__ for step in pipeline.PIPELINE)]
        after = pipeline.current_name(after) if after else after
        if after and after not in steps:
            hint = nearest(after, steps) or f"passes: {', '.join(steps)}"
            raise SpecError.of("unknown-pass", f"there is no pass '{after}' to show the graphs after", hint=hint)
        self._shown = None if after is None else set(steps[: steps.index(after) + 1] if after else steps)
        if folder is not None:
            claim(folder / "00-expand.flow")
        self._folder = folder
        self._latest: dict[str, Graph] = {}
        self._count: dict[str, int] = {}

    def see(self, phase: str, step: str, graph: Graph) -> None:
        """A graph after a step that changed it."""
        if self._shown is not None and step in self._shown:
            self._latest[phase] = graph
        if self._folder is not None:
            number = self._count.get(phase, 0)
            self._count[phase] = number + 1
            path = self._folder / f"{number:02d}-{step}.{phase}.flow"
            claim(path, ours=holds(b"graph "))
            write_whole(path, dump(graph))

    def show(self) -> None:
        """Print what `--dump-ir` asked for."""
        for graph in self._latest.values():
            click.echo(dump(graph), nl=False)
