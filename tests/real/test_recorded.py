"""Real checkpoints, imported and built with nothing edited, against what HuggingFace gave for the recorded prompts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowc.build import manifest
from flowc.cli import main
from flowc.runtime.decoder import Decoder
from flowc.runtime.generate import generate
from flowc.runtime.sampling import Sampler
from flowc.runtime.session import open_session, run_once
from tests.oracle_io import Array, shared_folder
from tests.weights.making import model_file

pytestmark = [pytest.mark.slow, pytest.mark.golden]

FILES = {
    "gemma-3-270m": "gemma3-270m/gemma-3-270m-Q4_K_M.gguf",
    "SmolLM2-135M-Instruct": "smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
}
TOLERANCE = 1e-3
"""Absolute; logits reach 45 (oracles/README.md, section 3)."""


class Built:
    """A real model's graphs, and what was recorded for it."""

    def __init__(self, name: str, folder: Path, target: str, shared: Path) -> None:
        file = model_file(FILES[name])
        spec, self.path = folder / "model.yaml", folder / "out" / "model.onnx"
        assert main(["import", str(file), "-o", str(spec)]) == 0
        assert main(["build", str(spec), "-o", str(self.path), "--target", target]) == 0
        real = shared / "oracles" / "real"
        self.prompts: list[dict[str, Any]] = json.loads((real / f"{name}.json").read_text(encoding="utf-8"))["prompts"]
        with np.load(real / f"{name}.npz", allow_pickle=False) as archive:
            self.arrays: dict[str, Array] = {key: archive[key] for key in archive.files}


@pytest.fixture(scope="module", params=[(n, t) for n in FILES for t in ("ort-cpu", "portable")], ids="-".join)
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Built:
    shared = shared_folder()
    if shared is None:
        pytest.skip("no shared folder: set FLOWC_SHARED")
    name, target = request.param
    return Built(name, tmp_path_factory.mktemp(name), target, shared)


def test_logits_and_caches_of_the_prompts(built: Built) -> None:
    """The best twenty logits of each prompt's last token, all of them coarsely, and its row of the first cache."""
    session = open_session(built.path.with_name("model.prefill.onnx"))
    for i, prompt in enumerate(built.prompts):
        ids = np.asarray([prompt["input_ids"]])
        results = run_once(session, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        logits = results["logits"][0, -1]
        assert logits.argmax() == prompt["top20_ids"][0]
        np.testing.assert_allclose(logits[prompt["top20_ids"]], prompt["top20_logits"], atol=TOLERANCE, rtol=0)
        np.testing.assert_allclose(logits, built.arrays[f"p{i}/last_logits_f16"].astype(np.float32), atol=0.03, rtol=0)
        for slot in ("key", "value"):
            last = results[f"present.0.{slot}"][0, :, -1]
            np.testing.assert_allclose(last, built.arrays[f"p{i}/{slot}_last.0"], atol=TOLERANCE, rtol=1e-5)


@pytest.mark.parametrize("way", ["pair", "unified"])
def test_greedy_tokens(built: Built, way: str) -> None:
    decoder = Decoder.open(manifest.load(built.path), mode=way)
    for prompt in built.prompts:
        count = len(prompt["greedy_ids"])
        got = list(generate(decoder, prompt["input_ids"], max_tokens=count, sampler=Sampler()))
        assert got == prompt["greedy_ids"], prompt["prompt"]
