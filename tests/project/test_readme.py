"""What the README shows is what happens."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime
import pytest

from tests.oracle_io import ROOT, Array

README = (ROOT / "README.md").read_text(encoding="utf-8")
EXAMPLE = ROOT / "examples" / "tiny-llama.yaml"


def flowc(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flowc", *words]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", "NO_COLOR": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder where the README's first example has run."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "examples").mkdir()
    (folder / "examples" / EXAMPLE.name).write_bytes(EXAMPLE.read_bytes())
    line = next(line for line in README.splitlines() if ".venv/bin/flowc build" in line)
    for command in line.strip().split(" && "):
        done = flowc(*command.split()[1:], folder=folder)
        assert done.returncode == 0, done.stderr
        assert done.stdout
    return folder


def test_files_of_the_first_example_are_those_of_the_table(built: Path) -> None:
    table = README.partition("## What comes out")[2].partition("An encoder")[0]
    promised = set(re.findall(r"^\| `(out/[^`]+)`", table, re.MULTILINE))
    assert len(promised) == 5
    assert {f"out/{path.name}" for path in (built / "out").iterdir()} == promised


def recomputed(session: onnxruntime.InferenceSession, ids: list[int], count: int) -> list[int]:
    """Greedy tokens of the unified graph, everything computed anew for each token."""
    nothing: dict[str, Array] = {}
    for value in cast("list[Any]", session.get_inputs()):
        if value.name.startswith("past_key_values."):
            _, heads, _, size = value.shape
            nothing[value.name] = np.zeros((1, heads, 0, size), np.float32)
    row = list(ids)
    for _ in range(count):
        fed = np.array([row], np.int64)
        feed = {"input_ids": fed, "attention_mask": np.ones_like(fed), **nothing}
        (logits,) = cast("list[Array]", session.run(["logits"], feed))
        row.append(int(logits[0, -1].argmax()))
    return row[len(ids) :]


def test_the_loop_of_plain_onnxruntime_gives_the_tokens_of_the_unified_graph(built: Path) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    done = subprocess.run([sys.executable, "-c", block], cwd=built, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    tokens = ast.literal_eval(done.stdout)
    session = onnxruntime.InferenceSession(built / "out" / "model.onnx")
    assert tokens == recomputed(session, [1, 2, 3], 16)


def test_the_spec_of_the_readme_is_one(tmp_path: Path) -> None:
    sketch = README.partition("## What a spec looks like")[2]
    lines = [line[4:] for line in sketch.partition("A flow states")[0].splitlines() if line.startswith("    ")]
    (tmp_path / "model.yaml").write_text("\n".join(lines) + "\n", encoding="utf-8")
    done = flowc("check", "model.yaml", folder=tmp_path)
    assert done.returncode == 0, done.stderr


def test_commands_of_the_readme_exist(tmp_path: Path) -> None:
    table = README.partition("## Commands")[2].partition("Results go")[0]
    named = set(re.findall(r"`flowc ([a-z]+)", table))
    listed = flowc("--help", folder=tmp_path).stdout.partition("Commands:")[2]
    assert named == set(re.findall(r"^  ([a-z]+) ", listed, re.MULTILINE))
    for name in named:
        assert flowc(name, "--help", folder=tmp_path).returncode == 0, name


def test_links_of_the_pages_lead_somewhere() -> None:
    followed = 0
    for page in [ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md"), ROOT / "golden/README.md"]:
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} links to {target}"
                followed += 1
    assert followed > 50


@pytest.mark.parametrize(
    ("page", "folder", "ending"), [("README.md", "examples", "yaml"), ("docs/README.md", "docs", "md")]
)
def test_lists_of_examples_and_pages_are_whole(page: str, folder: str, ending: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    linked = {(ROOT / page).parent / target for target in re.findall(r"\]\(([^)#]+)\)", text)}
    files = set((ROOT / folder).glob(f"*.{ending}"))
    assert len(files) > 10
    assert not files - linked - {ROOT / page}


def test_exit_codes_of_the_readme_are_those_of_the_help(tmp_path: Path) -> None:
    told = " ".join(flowc("--help", folder=tmp_path).stdout.split())
    listed = dict(re.findall(r"^\| (\d+) \| (.*) \|$", README, re.MULTILINE))
    assert len(listed) == 6
    assert all(f"{code} " in told.partition("Exit codes:")[2] for code in listed)


def test_make_targets_of_the_readme_exist() -> None:
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    named = set(re.findall(r"make ([a-z-]+)", README)) - {"alone"}
    assert {"demo", "test", "check"} <= named
    assert named <= set(re.findall(r"make ([a-z-]+)", listed))
