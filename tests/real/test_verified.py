"""Real checkpoints, imported and built with nothing edited: their builds pass the default verify and the full one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flowc.build import manifest
from flowc.cli import main
from flowc.runtime.decoder import Decoder
from flowc.runtime.generate import generate
from flowc.runtime.sampling import Sampler
from tests.weights.making import model_file

pytestmark = [pytest.mark.slow, pytest.mark.golden]

QWEN = "qwen2.5/Qwen2.5-Coder-0.5B-Instruct.gguf"
FILES = {
    "qwen2.5": QWEN,
    "smollm2": "smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "gemma3": "gemma3-270m/gemma-3-270m-Q4_K_M.gguf",
    "minilm": "minilm/model.safetensors",
}


def built(file: str, folder: Path) -> tuple[Path, Path]:
    """The checkpoint, and its build with the default verify."""
    path = model_file(file)
    source = path.parent if path.suffix == ".safetensors" else path
    assert main(["import", str(source), "-o", str(folder / "model.yaml")]) == 0
    assert main(["build", str(folder / "model.yaml"), "-o", str(folder / "out" / "model.onnx")]) == 0
    return source, folder / "out" / "model.onnx"


@pytest.mark.parametrize("name", FILES)
def test_default_and_full_verify(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, model = built(FILES[name], tmp_path)
    assert main(["verify", str(model), "--weights", str(source)]) == 0, capsys.readouterr().err


def test_greedy_tokens_of_qwen(tmp_path: Path) -> None:
    recorded = Path(__file__).with_name("qwen2.5-coder-0.5b.json")
    if not recorded.is_file():
        pytest.skip(f"{recorded.name} is not recorded: run tests/real/record_qwen.py")
    prompts = json.loads(recorded.read_text(encoding="utf-8"))["prompts"]
    assert len(prompts) == 5
    decoder = Decoder.open(manifest.load(built(QWEN, tmp_path)[1]), mode="pair")
    for prompt in prompts:
        count = len(prompt["greedy_ids"])
        got = list(generate(decoder, prompt["input_ids"], max_tokens=count, sampler=Sampler()))
        assert got == prompt["greedy_ids"], prompt["prompt"]
