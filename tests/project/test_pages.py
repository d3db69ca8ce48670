"""Generated pages are up to date, and a stale one of each kind is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from flowc.reference import __main__ as reference
from tests.mutation import __main__ as mutation
from tests.parity import __main__ as parity
from tests.passes import report
from tests.project import built_bytes, pages

Patch = pytest.MonkeyPatch


def test_pages_are_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert pages.main(["--check"]) == 0, capsys.readouterr().err


def copied(page: Path, folder: Path, old: str, new: str) -> Path:
    text = page.read_text(encoding="utf-8")
    assert old in text
    (folder / page.name).write_text(text.replace(old, new, 1), encoding="utf-8")
    return folder / page.name


def _stage_page(patch: Patch, folder: Path) -> None:
    wanted = reference.generated()
    page = next(path for path in wanted if path.name == "stages.md")
    patch.setattr(pages, "ROOT", folder)
    patch.setattr(reference, "generated", lambda: {copied(page, folder, "# Stages", "# Kinds"): wanted[page]})


def _pass_page(patch: Patch, folder: Path) -> None:
    page = copied(report.PAGE, folder, "Equal operators on equal operands become one", "Equal operators become one")
    patch.setattr(report, "PASSES", replace(report.PASSES, page=page))


def _figures_of_a_former_pass(patch: Patch, folder: Path) -> None:
    page = copied(report.PAGE, folder, "\nfold_rope ", "\nfold_ropes")
    patch.setattr(report, "FIGURES", replace(report.FIGURES, page=page))


def _figures_of_a_model_missing(patch: Patch, folder: Path) -> None:
    patch.setattr(report, "MODELS", {**report.MODELS, "SmolLM3": Path("x")})


def _fault_not_told(patch: Patch, folder: Path) -> None:
    page = copied(mutation.TABLES.page, folder, "| rope of q skipped (tiny-llama) |", "| rope of k skipped |")
    patch.setattr(mutation, "TABLES", replace(mutation.TABLES, page=page))


def _other_tolerance(patch: Patch, folder: Path) -> None:
    page = copied(
        parity.PAGE, folder, "| llama_gqa4_bias | ort-cpu | equal | 2", "| llama_gqa4_bias | ort-cpu | equal | 9"
    )
    patch.setattr(parity, "PAGE", page)


def _case_not_told(patch: Patch, folder: Path) -> None:
    page = copied(parity.PAGE, folder, "| bert_mlm_prefix | portable |", "| bert_mlm_prefixed | portable |")
    patch.setattr(parity, "PAGE", page)


def _model_not_recorded(patch: Patch, folder: Path) -> None:
    record = json.loads(built_bytes.RECORD.read_text(encoding="utf-8"))
    del record["models"]["examples/tiny-llama"]
    (folder / "record.json").write_text(json.dumps(record))
    patch.setattr(built_bytes, "RECORD", folder / "record.json")


STALE: dict[str, tuple[Callable[[Patch, Path], None], str]] = {
    "a page of the reference": (_stage_page, "stages.md: run `make gen`"),
    "what a pass is": (_pass_page, "docs/passes.md, the passes in order: run `make gen`"),
    "figures of a former pass": (_figures_of_a_former_pass, "figures of the pass 'fold_ropes', which is gone"),
    "figures of a model missing": (_figures_of_a_model_missing, "has no figures of SmolLM3: run `make gen-full`"),
    "a fault not told": (_fault_not_told, "lacks the fault 'rope of q skipped (tiny-llama)': run `make gen-full`"),
    "another tolerance": (_other_tolerance, "another tolerance of llama_gqa4_bias on ort-cpu: 9"),
    "a case not told": (_case_not_told, "has 0 rows of bert_mlm_prefix on portable"),
    "a model not recorded": (_model_not_recorded, "golden/built_bytes.json, examples/tiny-llama"),
}


@pytest.mark.parametrize("kind", STALE)
def test_a_stale_page_is_found(
    kind: str, tmp_path: Path, monkeypatch: Patch, capsys: pytest.CaptureFixture[str]
) -> None:
    plant, words = STALE[kind]
    plant(monkeypatch, tmp_path)
    assert pages.main(["--check"]) == 1
    assert words in capsys.readouterr().err


def test_a_long_part_says_what_it_needs(monkeypatch: Patch, capsys: pytest.CaptureFixture[str]) -> None:
    (figures, *_) = pages.LONG
    monkeypatch.setattr(pages, "LONG", (replace(figures, missing=lambda: ["a model"]),))
    assert pages.full() == 4
    shown = capsys.readouterr()
    assert "examples/fetch.py" in shown.out
    assert "is left as it is, for want of a model" in shown.err


def test_another_word_is_refused() -> None:
    assert pages.main(["--chekc"]) == 2


def test_a_block_is_written_between_its_marks(tmp_path: Path) -> None:
    block = replace(report.PASSES, page=tmp_path / "page.md")
    block.page.write_text(f"before\n{block.begin}\nold\n{block.end}\nafter\n")
    block.write("new\n")
    assert block.read() == "new"
    assert block.page.read_text() == f"before\n{block.begin}\nnew\n{block.end}\nafter\n"
