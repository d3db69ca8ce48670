from __future__ import annotations

import numpy as np
import pytest

from flowc.errors import CheckFailed
from flowc.runtime.sampling import Sampler

LOGITS = np.array([0.5, 2.0, -1.0, 2.0, 1.0, -np.inf], np.float32)


def shares(sampler: Sampler, draws: int = 20000) -> np.ndarray:
    counts = np.zeros(len(LOGITS))
    for _ in range(draws):
        counts[sampler.pick(LOGITS)] += 1
    return counts / draws


def test_greedy_takes_the_first_of_equals() -> None:
    sampler = Sampler()
    assert sampler.greedy
    assert {sampler.pick(LOGITS) for _ in range(5)} == {1}


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_drawing_follows_the_softmax(temperature: float) -> None:
    expected = np.exp(LOGITS.astype(float) / temperature)
    expected /= expected.sum()
    got = shares(Sampler(temperature, seed=1))
    np.testing.assert_allclose(got, expected, atol=0.015)
    assert got[5] == 0


def test_a_tiny_temperature_is_greedy_among_the_best() -> None:
    assert {Sampler(1e-300, seed=seed).pick(LOGITS) for seed in range(20)} == {1, 3}


@pytest.mark.parametrize(("top_k", "kept"), [(1, {1}), (2, {1, 3}), (3, {1, 3, 4}), (100, {0, 1, 2, 3, 4})])
def test_top_k_keeps_the_likeliest(top_k: int, kept: set[int]) -> None:
    got = shares(Sampler(1.0, top_k=top_k, seed=2))
    assert set(np.flatnonzero(got)) == kept
    expected = np.where(np.isin(np.arange(6), list(kept)), np.exp(LOGITS), 0)
    np.testing.assert_allclose(got, expected / expected.sum(), atol=0.015)


@pytest.mark.parametrize(("top_p", "kept"), [(0.01, {1}), (0.37, {1}), (0.4, {1, 3}), (0.85, {1, 3, 4})])
def test_top_p_keeps_the_fewest_that_reach_it(top_p: float, kept: set[int]) -> None:
    probabilities = np.exp(LOGITS.astype(float)) / np.exp(LOGITS.astype(float)).sum()
    inside = sorted(probabilities[list(kept)], reverse=True)
    assert sum(inside) >= top_p > sum(inside[:-1]), "the expectation itself"
    got = shares(Sampler(1.0, top_p=top_p, seed=3), 4000)
    assert set(np.flatnonzero(got)) == kept


def test_the_lowest_ids_stay_among_equals() -> None:
    sampler = Sampler(1.0, top_k=5, seed=4)
    assert {sampler.pick(np.zeros(3000, np.float32)) for _ in range(200)} == {0, 1, 2, 3, 4}


def test_a_seed_repeats_a_run_and_none_differ() -> None:
    flat = np.zeros(1000, np.float32)
    runs = [[sampler.pick(flat) for _ in range(8)] for sampler in (Sampler(1, seed=5), Sampler(1, seed=5), Sampler(1))]
    assert runs[0] == runs[1] != runs[2]
    unseeded = Sampler(1.0)
    first = [unseeded.pick(flat) for _ in range(8)]
    again = Sampler(1.0, seed=unseeded.seed)
    assert [again.pick(flat) for _ in range(8)] == first


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_no_numbers(bad: float) -> None:
    with pytest.raises(CheckFailed, match=r"bad-logits\]: .*best logit, at token 2"):
        Sampler().pick(np.array([0, 1, bad], np.float32))


@pytest.mark.parametrize(
    "wrong",
    [
        {"temperature": -1},
        {"temperature": np.nan},
        {"temperature": np.inf},
        {"top_k": -1},
        {"top_p": 0},
        {"top_p": 1.5},
    ],
)
def test_settings_out_of_range(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="needs a finite temperature"):
        Sampler(**wrong)  # pyright: ignore[reportArgumentType]
