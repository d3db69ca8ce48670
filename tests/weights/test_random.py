from __future__ import annotations

import hashlib

import numpy as np
import pytest

from flowc.weights.random import RandomCheckpoint
from tests.weights.making import refused


def random_tensor(name: str, *shape: int, seed: int = 1) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    checkpoint = RandomCheckpoint(seed)
    checkpoint.declare(name, shape)
    return checkpoint.read(name)


def test_the_stream_is_philox_keyed_by_seed_name_and_shape() -> None:
    key = int.from_bytes(hashlib.sha256(b"5/w/(3, 4)").digest()[:16], "little")
    words = [int(w) for w in np.random.Philox(key=key).random_raw(6)]
    halves = [half for w in words for half in (w & 0xFFFFFFFF, w >> 32)]
    uniform = np.array([(2 * (half >> 8) - (2**24 - 1)) / 2**24 for half in halves])
    expected = uniform.astype(np.float32) * np.float32(np.sqrt(3 / 4))
    np.testing.assert_array_equal(random_tensor("w", 3, 4, seed=5).reshape(-1), expected)


def test_the_bits_are_the_same_on_every_machine() -> None:
    digest = hashlib.sha256(random_tensor("model.embed_tokens.weight", 300, 257).tobytes()).hexdigest()
    assert digest == "f8d2d4ffdbb655cb7cf56b8532aa7648f7563ca4cd53a1e72e71b17d02a62cf7"


def test_values_depend_on_seed_name_and_shape() -> None:
    base = random_tensor("a", 8, 8)
    np.testing.assert_array_equal(base, random_tensor("a", 8, 8))
    for other in (random_tensor("b", 8, 8), random_tensor("a", 8, 8, seed=2), random_tensor("a", 64)):
        assert not np.array_equal(base.reshape(-1), other.reshape(-1))


@pytest.mark.parametrize("shape", [(1000, 777), (3, 70_001), (1001,), (5, 1, 4)])
def test_rows_agree_with_the_whole(shape: tuple[int, ...]) -> None:
    checkpoint = RandomCheckpoint(0)
    checkpoint.declare("w", shape)
    whole = checkpoint.read("w")
    for begin, end in ((0, 1), (1, 3), (2, shape[0]), (shape[0] - 1, shape[0])):
        np.testing.assert_array_equal(checkpoint.read("w", slice(begin, end)), whole[begin:end])


def test_a_tensor_of_any_size_costs_only_the_rows_asked_for() -> None:
    checkpoint = RandomCheckpoint(0)
    checkpoint.declare("w", (1 << 40, 8))
    assert checkpoint.read("w", slice((1 << 40) - 2, 1 << 40)).shape == (2, 8)


def test_matrices_keep_variance_and_norms_are_about_one() -> None:
    matrix = random_tensor("q_proj.weight", 2000, 300)
    assert abs(matrix.std() * np.sqrt(300) - 1) < 0.01
    assert abs(matrix.mean()) < 1e-3
    for name in (
        "input_layernorm.weight",
        "norm1.weight",
        "ln_f.weight",
        "layer_scale1.lambda1",
        "self_attn.q_norm.weight",
    ):
        assert abs(random_tensor(name, 5000).mean() - 1) < 0.01, name
    for name in ("q_proj.bias", "norm1.bias", "dt_bias"):
        assert np.abs(random_tensor(name, 5000)).max() < 0.05, name


def test_scalars_and_empty_tensors() -> None:
    assert random_tensor("w").shape == ()
    assert random_tensor("w", 0, 4).shape == (0, 4)


def test_what_was_not_declared_is_missing() -> None:
    with refused("missing-tensor", "'w'"):
        RandomCheckpoint(0).read("w")
