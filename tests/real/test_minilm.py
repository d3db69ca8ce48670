"""all-MiniLM-L6-v2 as it is downloaded, by the command line alone: its vectors are those of sentence-transformers."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from flowc.cli import main
from tests.oracle_io import Array

pytestmark = pytest.mark.slow

NAME = "all-MiniLM-L6-v2"
ort: Any = onnxruntime  # ships no types


@pytest.fixture(scope="module", params=["ort-cpu", "portable"])
def session(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    cache = Path(os.environ.get("FLOWC_CACHE") or Path.home() / ".cache" / "flowc")
    source = cache / "models" / "minilm"
    if not (source / "model.safetensors").is_file():
        pytest.skip(f"{NAME} is not in the cache: run examples/fetch.py minilm")
    folder = tmp_path_factory.mktemp("minilm")
    assert main(["import", str(source), "-o", str(folder / "model.yaml")]) == 0
    out = folder / "out" / "model.onnx"
    assert main(["build", str(folder / "model.yaml"), "-o", str(out), "--target", request.param]) == 0
    return ort.InferenceSession(out, providers=["CPUExecutionProvider"])


@pytest.fixture
def recorded(shared: Path) -> dict[str, Array]:
    with np.load(shared / "oracles" / "real" / f"{NAME}.npz", allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files}


INPUTS = ("input_ids", "attention_mask", "token_type_ids")


def run(session: Any, feeds: dict[str, Array]) -> dict[str, Array]:
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(None, {n: feeds[n] for n in INPUTS}), strict=True))


def test_recorded_sentences(session: Any, recorded: dict[str, Array], shared: Path) -> None:
    facts = json.loads((shared / "oracles" / "real" / f"{NAME}.json").read_text(encoding="utf-8"))
    got = run(session, recorded)
    vectors = got["mean_pooled_l2"]
    assert len(vectors) == len(facts["sentences"])
    np.testing.assert_allclose(vectors, recorded["embeddings"], rtol=1e-5, atol=2e-6)
    np.testing.assert_allclose(got["pooler_output"], recorded["pooler_output"], rtol=1e-5, atol=2e-5)
    kept = recorded["attention_mask"][:4] != 0
    want = recorded["last_hidden_state_rows_0_3"]
    np.testing.assert_allclose(got["last_hidden_state"][:4][kept], want[kept], rtol=1e-5, atol=2e-5)
    for pair, cosine in facts["cos"].items():
        a, b = (vectors[int(i)] for i in pair.split("~"))
        assert abs(float(a @ b) - cosine) < 1e-5


def test_a_sentence_alone(session: Any, recorded: dict[str, Array]) -> None:
    """A row of the padded batch equals the sentence without padding."""
    for row in (0, 13, 14):
        length = int(recorded["attention_mask"][row].sum())
        alone = run(session, {n: recorded[n][row : row + 1, :length] for n in INPUTS})
        np.testing.assert_allclose(alone["mean_pooled_l2"][0], recorded["embeddings"][row], rtol=1e-5, atol=2e-6)
