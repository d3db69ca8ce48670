from __future__ import annotations

from flowc.passes.pipeline import PIPELINE
from tests.oracle_io import COMMITTED
from tests.passes.report import figures, passes_part


def test_every_pass_shows_before_and_after() -> None:
    for step in PIPELINE:
        part = passes_part().split(f"### {step.__name__}\n")[1].split("\n###")[0]
        assert "=>" in part


def test_figures_come_from_the_model() -> None:
    part = figures({"small": COMMITTED / "llama_gqa4_bias"})
    lines = [line.split() for line in part.splitlines()]
    assert ["hoist_token_selection", "1", "of", "1"] in [line[:4] for line in lines]
    before, after = (next(line for line in lines if line[:1] == [word]) for word in ("before", "after"))
    assert float(after[-1]) < float(before[-1])
