"""A recurrent model in the runtime: every way through the graphs, ragged batches, and the same tokens."""

from __future__ import annotations

import numpy as np
import pytest

from flowc.build.compiled import Request
from flowc.build.manifest import Manifest, load
from flowc.compile import build, compile_file
from flowc.runtime.decoder import Decoder
from tests.oracle_io import ROOT, Array

STEPS = 6


@pytest.fixture(scope="module", params=["ort-cpu", "portable"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    folder = tmp_path_factory.mktemp("hybrid")
    compiled = compile_file(ROOT / "examples" / "qwen3.5.yaml", Request(target=request.param))
    build(compiled, folder / "model.onnx", verify="off")
    return load(folder / "model.onnx")


def greedy(model: Manifest, way: str, ids: Array, mask: Array) -> Array:
    """The logits of every step [batch, steps, vocab] when each row goes on with its likeliest token."""
    decoder = Decoder.open(model, mode=way, threads=1)
    found = [decoder.start(ids, mask)]
    while len(found) < STEPS:
        found.append(decoder.step(found[-1].argmax(axis=-1)))
    return np.concatenate(found, axis=1)


def test_every_way_gives_the_same(model: Manifest) -> None:
    ids = np.random.default_rng(1).integers(0, 256, (2, 7))
    mask = np.ones_like(ids)
    mask[1, [0, 3, 6]] = 0
    pair, unified, decode = (greedy(model, way, ids, mask) for way in ("pair", "unified", "decode"))
    np.testing.assert_allclose(unified, pair, atol=5e-4)
    np.testing.assert_allclose(decode, pair, atol=5e-4)


def test_a_row_of_a_ragged_batch_goes_on_as_it_does_alone(model: Manifest) -> None:
    rng = np.random.default_rng(2)
    rows = [rng.integers(0, 256, (1, n)) for n in (3, 9, 6)]
    ids, mask = np.zeros((3, 9), np.int64), np.zeros((3, 9), np.int64)
    for i, row in enumerate(rows):
        ids[i, 9 - row.shape[1] :], mask[i, 9 - row.shape[1] :] = row, 1
    together = greedy(model, "pair", ids, mask)
    for i, row in enumerate(rows):
        alone = greedy(model, "pair", row, np.ones_like(row))
        np.testing.assert_allclose(together[i], alone[0], atol=5e-4)
