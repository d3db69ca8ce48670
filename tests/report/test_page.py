from __future__ import annotations

import base64
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from click.testing import CliRunner

from flowc.cli import cli
from flowc.ir.traits import Category
from tests.cli.calling import done, flowc, process, save_file, write_spec
from tests.oracle_io import ROOT
from tests.report.test_diff import TINIEST

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
    assert not {"link", "img", "iframe"} & {tag for tag, _ in tags}
    assert not [a for _, a in tags if "src" in a or "href" in a]
    assert not [name for _, a in tags for name in a if name.startswith("on")]
    assert not re.search(r"https?://|url\(|@import", page)


def test_nothing_runs_but_the_script_that_the_policy_names(page: str) -> None:
    [script] = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in page


def test_a_page_shows_stages_passes_and_checks(page: str) -> None:
    for text in ("tiny-llama", "embed", "q_proj", "lm_head", "fold_rope", "1 of 1", "passed", "past_key_values.0.key"):
        assert text in page
    assert page.count("<svg") == 3
    assert "The quick check of this build, made for this page, passed." in page


def test_every_box_can_be_asked_about(page: str) -> None:
    boxes = [str(a["data-id"]) for tag, a in Page(page).seen if tag == "g" and "data-id" in a]
    details = json.loads(page.partition('id="details">')[2].partition("</script>")[0])
    assert sorted(details) == sorted(boxes)
    facts = [dict(d["facts"]) for d in details.values() if d["title"].endswith(" q_proj")]
    assert {"stage", "in the spec", "takes weight", "gives"} <= facts[0].keys()


def test_a_page_of_a_spec_needs_no_build(tmp_path: Path) -> None:
    assert "nothing was built, so nothing was checked" in report(TINY, tmp_path)


def colours(scheme: str) -> dict[str, str]:
    light, _, dark = (ROOT / "flowc/report/page.css").read_text().partition("prefers-color-scheme:dark")
    read = {name: colour for part in (light, dark if scheme == "dark" else "")
            for name, colour in re.findall(r"--([\w-]+):(#[0-9a-f]{6})", part)}  # fmt: skip
    return read


def contrast(a: str, b: str) -> float:
    """Contrast ratio of two colours, as WCAG 2 defines it."""

    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [v / 12.92 if v <= 0.03928 else ((v + 0.055) / 1.055) ** 2.4 for v in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(a), luminance(b)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_all_text_has_contrast_aa(scheme: str) -> None:
    colour = colours(scheme)
    pairs = [(text, ground) for text in ("ink", "soft", "good", "bad", "focus") for ground in ("paper", "ground")]
    pairs += [("on-box", name) for name in get_args(Category)]
    pairs += [("on-mark", "mark"), ("residual", "ground"), ("paper", "ink")]
    low = {pair: round(contrast(*(colour[n] for n in pair)), 2) for pair in pairs}
    assert not {pair: ratio for pair, ratio in low.items() if ratio < 4.5}


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """A build whose original weights are not at hand."""
    write_spec(tmp_path, TINIEST)
    tensors = {"embed.weight": (8, 4), "norm.weight": (4,), "head.weight": (8, 4)}
    save_file({n: np.linspace(-1, 1, np.prod(s), dtype=np.float32).reshape(s) for n, s in tensors.items()},
              tmp_path / "w.safetensors")  # fmt: skip
    done("build", tmp_path / "model.yaml", "-o", tmp_path / "out/model.onnx")
    (tmp_path / "w.safetensors").unlink()
    return tmp_path / "out/model.onnx"


def test_a_build_is_checked_without_its_original_weights(other: Path) -> None:
    page = other.with_name("page.html")
    done("report", other, "-o", page)
    text = page.read_text()
    assert "made for this page, passed; the original weights were not at hand" in text
    done("report", other, "-o", page, "--verify", "full")
    assert "The full check of this build, made for this page, passed" in page.read_text()
    done("report", other, "-o", page, "--verify", "off")
    assert "Nothing was checked for this page" in page.read_text()
    assert ">passed<" not in page.read_text()


@pytest.mark.parametrize("file", ["model.onnx.data", "model.onnx"])
@pytest.mark.parametrize("depth", ["quick", "full"])
def test_a_damaged_build_fails_and_its_page_says_so(other: Path, file: str, depth: str) -> None:
    path = other.with_name(file)
    data = bytearray(path.read_bytes())
    data[-64:] = bytes(64)
    path.write_bytes(data)
    page = other.with_name("page.html")
    told = flowc("report", other, "-o", page, "--verify", depth)
    assert told.code == 1
    assert "error[" in told.stderr
    assert f"The {depth} check of this build, made for this page, FAILED" in page.read_text()


def test_a_page_is_whole_on_a_full_disk(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done("report", TINY, "-o", page)
    before = page.read_bytes()
    program = (
        "import resource, signal, sys; from flowc.cli import main; "
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)); "
        f"sys.exit(main(['report', {str(TINY)!r}, '-o', {str(page)!r}]))"
    )
    made = subprocess.run([sys.executable, "-B", "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert made.returncode == 4
    assert "error[cannot-write]" in made.stderr
    assert page.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


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
    evil = "</script><script>alert(1)</script>"
    path.write_text(TINY.read_text().replace("name: tiny-llama", f"name: '{evil}'").replace("lm_head: {", "lm_head: {")
                    .replace("model.norm.weight", "'<b>.weight'")
                    .replace("count: $layers", "count: $layers\n      name: '<script>one'"))  # fmt: skip
    text = report(path, tmp_path)
    assert "alert(1)" in text
    assert "<script>one" not in text
    assert text.count("&lt;script&gt;one.0") >= 6, "in the drawing and in the table of each graph"
    assert evil not in text
    assert "<b>.weight" not in text
    Page(text)
