"""The sample repository of docs/ci.md lives through the change that the page tells of."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.calling import done, flowc
from tests.oracle_io import ROOT

PAGE = (ROOT / "docs/ci.md").read_text(encoding="utf-8")
NUMBER = re.compile(r"\d+(\.\d+)?(e-?\d+)?")


def shown(mark: str) -> list[str]:
    """A block of the page, its numbers masked: another processor sums in another order."""
    block = PAGE.partition(f"<!-- {mark} -->\n```text\n")[2].partition("```")[0]
    assert block
    return masked(block)


def masked(text: str) -> list[str]:
    return [NUMBER.sub("#", line) for line in text.splitlines()]


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "repository"
    shutil.copytree(ROOT / "examples/ci", folder)
    for name in [n for n in os.environ if n.startswith("GIT_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(folder)
    commit = ("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "one")
    for words in (("init", "-qb", "main"), ("add", "."), commit):
        subprocess.run(["git", *words], check=True)
    return folder


def test_the_change_of_the_page(repository: Path) -> None:
    done("check", *repository.glob("*.yaml"))
    done("golden", "check", "golden")
    spec = repository / "model.yaml"
    spec.write_text(spec.read_text().replace("norm_eps: 1e-5", "norm_eps: 1e-3"))
    stopped = flowc("golden", "check", "golden")
    assert stopped.code == 1
    assert masked(stopped.stdout) == shown("check")
    assert done("golden", "record", "--update", "golden").stdout.endswith("wrote golden/assistant.json\n")
    read = flowc("golden", "diff", "golden", "--since", "main")
    assert read.code == 1
    assert masked(read.stdout) == shown("diff")
    done("golden", "check", "golden", "--strict")
    differs = flowc("diff", "main:./model.yaml", "model.yaml")
    assert differs.code == 1
    assert "model.norm_eps" in differs.stdout


def test_the_workflow_runs_commands_that_there_are(repository: Path) -> None:
    lines = re.findall(r"run: (flowc .*)", (repository / "workflow.yml").read_text())
    assert len(lines) == 3
    for line in lines:
        words = line.partition(" >>")[0].replace("*.yaml", "model.yaml").replace('"origin/$GITHUB_BASE_REF"', "main")
        done(*words.split()[1:])
