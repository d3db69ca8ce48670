"""The main job on real input: from a GGUF file to the greedy tokens that HuggingFace gives for the recorded prompts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from flowc.build import manifest
from flowc.cli import main
from flowc.runtime.decoder import Decoder
from flowc.runtime.generate import generate
from flowc.runtime.sampling import Sampler

pytestmark = pytest.mark.slow

NAME = "SmolLM2-135M-Instruct"


@pytest.fixture(scope="module", params=["ort-cpu", "portable"])
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    cache = Path(os.environ.get("FLOWC_CACHE") or Path.home() / ".cache" / "flowc")
    gguf = cache / "models" / "smollm2" / f"{NAME}.Q4_1.gguf"
    if not gguf.is_file():
        pytest.skip(f"{gguf.name} is not in the cache: run examples/fetch.py")
    folder = tmp_path_factory.mktemp("smollm2")
    assert main(["import", str(gguf), "-o", str(folder / "model.yaml")]) == 0
    out = folder / "out" / "model.onnx"
    assert main(["build", str(folder / "model.yaml"), "-o", str(out), "--target", request.param]) == 0
    return out


@pytest.fixture
def recorded(shared: Path) -> list[dict[str, Any]]:
    return json.loads((shared / "oracles" / "real" / f"{NAME}.json").read_text(encoding="utf-8"))["prompts"]


@pytest.mark.parametrize("way", ["pair", "unified"])
def test_every_recorded_prompt(built: Path, recorded: list[dict[str, Any]], way: str) -> None:
    decoder = Decoder.open(manifest.load(built), mode=way)
    for prompt in recorded:
        count = len(prompt["greedy_ids"])
        got = list(generate(decoder, prompt["input_ids"], max_tokens=count, sampler=Sampler()))
        assert got == prompt["greedy_ids"], prompt["prompt"]


def test_it_speaks(built: Path, recorded: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    ended = [prompt for prompt in recorded if prompt["kind"] == "chat" and prompt["eos_at"] is not None]
    assert ended
    for prompt in ended:
        capsys.readouterr()
        assert main(["run", str(built), "--prompt", prompt["prompt"]]) == 0
        shown = capsys.readouterr()
        assert shown.out == prompt["greedy_until_eos"] + "\n"
        assert "the model ended its text" in shown.err
