from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner

from flowc.build.compiled import Request
from flowc.cli import cli
from flowc.compile import compile_file
from flowc.report.drawing import groups
from tests.cli.calling import process
from tests.oracle_io import ROOT

TINY = ROOT / "examples" / "tiny-llama.yaml"


class Page(HTMLParser):
    """Collects tags and refuses a page whose tags do not close."""

    void = frozenset({"meta", "br", "input"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def report(path: Path, folder: Path, *options: str) -> str:
    out = folder / "report.html"
    result = CliRunner().invoke(cli, ["report", str(path), "-o", str(out), *options])
    assert result.exit_code == 0, result.output
    return out.read_text()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("report")
    model = folder / "model.onnx"
    assert CliRunner().invoke(cli, ["build", str(TINY), "-o", str(model)]).exit_code == 0
    return report(model, folder)


def test_a_page_stands_alone(page: str) -> None:
    tags = Page(page).seen
    assert not {"script", "link", "img", "iframe"} & {tag for tag, _ in tags}
    assert not [a for _, a in tags if "src" in a or "href" in a]
    assert not re.search(r"https?://|url\(|@import", page)


def test_a_page_shows_stages_passes_and_checks(page: str) -> None:
    for text in ("tiny-llama", "embed", "q_proj", "lm_head", "fold_rope", "1 of 1", "passed", "past_key_values.0.key"):
        assert text in page
    assert page.count("<svg") == 3


def test_a_page_of_a_spec_needs_no_build(tmp_path: Path) -> None:
    assert "Not checked for this report" in report(TINY, tmp_path)


def test_the_same_model_gives_the_same_page(tmp_path: Path) -> None:
    """In processes that put sets in another order, too."""
    pages: list[bytes] = []
    for seed in ("1", "2"):
        made = process("report", TINY, "-o", tmp_path / f"{seed}.html", env={"PYTHONHASHSEED": seed})
        assert made.communicate()[1] == b""
        assert made.returncode == 0
        pages.append((tmp_path / f"{seed}.html").read_bytes())
    assert pages[0] == pages[1]


def test_text_of_a_spec_cannot_become_markup(tmp_path: Path) -> None:
    path = tmp_path / "model.yaml"
    text = TINY.read_text().replace("name: tiny-llama", "name: '<script>alert(1)</script>'")
    path.write_text(text.replace("count: $layers", "count: $layers\n      name: '<script>one'"))
    shown = report(path, tmp_path)
    assert "<script" not in shown
    assert shown.count("&lt;script&gt;one.0") >= 6, "in the drawing and in the table of each graph"


def test_equal_layers_are_drawn_once(tmp_path: Path) -> None:
    path = tmp_path / "model.yaml"
    path.write_text(TINY.read_text().replace("layers: 2", "layers: 9"))
    graph = compile_file(path, Request()).graphs["decode"]
    times = {p.label: p.times for p in groups(graph)}
    assert sum(n for label, n in times.items() if label.startswith("layers.")) == 9
    assert max(times.values()) >= 7
