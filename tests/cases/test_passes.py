"""What a pass does to a small spec: passes/*.yaml.

A case names its `pass`, and may give `phase`, `target`, `assume` and `dtype`. The pass works on what the passes before
it leave; `changes` are the lines of the dump that it takes away and adds, without their places in the spec.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flowc.build.compiled import Compiled
from flowc.ir.dump import dump
from flowc.ir.graph import Graph
from flowc.passes.audit import Precision
from flowc.passes.pipeline import PIPELINE
from tests.cases.reading import MARK, cases, compare, given
from tests.passes.making import Result, apply_in, assert_close, compile_text, random_feeds, run

CASES = cases("passes")
NAMES = [step.__name__ for step in PIPELINE]


def applied(case: dict[str, Any], folder: Path) -> tuple[Result, Compiled]:
    """The pass of a case on the graph that the passes before it leave."""
    phase = case.get("phase", "encode")
    options = {key: case[key] for key in ("target", "assume", "logits") if key in case}
    compiled = compile_text(folder, case["spec"], "", "model", graphs=(phase,), **options)
    context = replace(compiled.pass_context, precision=Precision(case.get("dtype", "float32")))
    graph = compiled.expanded[phase]
    for step in PIPELINE[: NAMES.index(case["pass"])]:
        graph = apply_in(step, graph, context).after
    return apply_in(PIPELINE[NAMES.index(case["pass"])], graph, context), compiled


def lines(graph: Graph) -> list[str]:
    """The dump without places in the spec."""
    return [re.sub(r"  @ .*$", "", line.strip()) for line in dump(graph).splitlines()]


def changes(before: Graph, after: Graph) -> Iterator[str]:
    """The lines that differ, `-` before and `+` after; `…` where equal lines were left out."""
    for group in difflib.SequenceMatcher(None, lines(before), lines(after), autojunk=False).get_opcodes():
        kind, a, b, c, d = group
        if kind == "equal":
            yield "…"
        else:
            yield from (f"- {line}" for line in lines(before)[a:b])
            yield from (f"+ {line}" for line in lines(after)[c:d])


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path, tmp_path: Path, update: bool) -> None:
    case = given(path)
    result, compiled = applied(case, tmp_path)
    feeds = random_feeds(result.before, padding="none" if case.get("assume") else "left")
    want = run(result.before, feeds, compiled)
    close = 2e-5 if "dtype" not in case else 4e-3
    assert_close(run(result.after, feeds, compiled), want, feeds.get("attention_mask"), close)
    text = "\n".join(changes(result.before, result.after)).strip("…\n")
    found = {"fired": result.audit.fired, "missed": dict(result.audit.missed), "changes": text}
    compare(path, found, update=update)


@pytest.mark.parametrize("name", NAMES)
def test_every_pass_is_shown_firing_and_not(name: str) -> None:
    texts = [path.read_text(encoding="utf-8").partition(MARK) for path in CASES]
    mine = [after for before, _, after in texts if f"\npass: {name}\n" in before]
    assert len(mine) >= 3
    fired = ["fired: []\n" not in after for after in mine]
    assert any(fired)
    assert not all(fired)
    changed = ['changes: ""\n' not in after for after in mine]
    assert all(c for c, f in zip(changed, fired, strict=True) if f), "what fires changes something"
