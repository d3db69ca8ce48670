from __future__ import annotations

from flowc.passes.pipeline import PIPELINE
from tests.passes.report import BEGIN, COMMITTED, END, PAGE, generated, passes_part


def test_the_page_describes_every_pass_as_its_file_does() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert text.count(BEGIN) == text.count(END) == 1
    assert passes_part() in text, "run python -m tests.passes.report"
    for step in PIPELINE:
        part = text.split(f"### {step.__name__}\n")[1].split("\n###")[0]
        assert "=>" in part, "before and after"


def test_figures_come_from_the_model() -> None:
    part = generated({"small": COMMITTED / "llama_gqa4_bias"})
    lines = [line.split() for line in part.splitlines()]
    assert ["hoist_token_selection", "1", "of", "1"] in [line[:4] for line in lines]
    before, after = (next(line for line in lines if line[:1] == [word]) for word in ("before", "after"))
    assert float(after[-1]) < float(before[-1])
