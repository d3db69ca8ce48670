"""What docs/encoder-decoders.md shows is what happens."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.encoder_decoder import FOLDER, built_bart
from tests.oracle_io import ROOT

PAGE = (ROOT / "docs" / "encoder-decoders.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    (folder / "out").mkdir()
    built_bart(folder / "out")
    return folder


def test_the_loop_of_plain_onnxruntime_gives_huggingfaces_tokens(built: Path) -> None:
    (block,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    known = json.loads((FOLDER / "greedy.json").read_text(encoding="utf-8"))["texts"][0]
    assert f"np.array([{known['text']}])" in block
    done = subprocess.run([sys.executable, "-c", block], cwd=built, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert ast.literal_eval(done.stdout) == known["tokens"]


def test_the_files_of_the_table_are_those_of_a_build(built: Path) -> None:
    promised = set(re.findall(r"`(out/model[^`]*)`", PAGE))
    named = {f"out/{file.name}" for file in (built / "out").iterdir() if file.suffix != ".json"}
    assert promised == named
