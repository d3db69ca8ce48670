"""Poolers, learned positions and the relative bias: meaning against plain formulas, lowering against the meaning."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest

from flowc.ir.core.pool import L2Normalize, Pool, PoolKind
from flowc.ir.core.relative_bias import RelativeBias
from flowc.ir.core.token_positions import AllOnes, Columns, PositionsFromIds
from tests.ir.running import TARGETS, lowered, meaning
from tests.oracle_io import Array

NAMES = ("batch_size", "sequence_length")
KINDS: tuple[PoolKind, ...] = get_args(PoolKind)

MASK = np.array([[1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0], [0, 0, 1, 1, 1, 1], [0, 1, 0, 1, 1, 0], [0, 0, 0, 0, 0, 0]])


def hidden(rows: int = 5, length: int = 6) -> Array:
    return np.random.default_rng(1).standard_normal((rows, length, 7)).astype(np.float32)


def pooled(kind: PoolKind, rows: list[Array]) -> Array:
    """What each kind says, row by row over its own tokens."""
    of: dict[PoolKind, Callable[[Array], Array]] = {
        "mean": lambda r: r.mean(0),
        "mean_sqrt_len": lambda r: r.sum(0) / np.sqrt(len(r)),
        "max": lambda r: r.max(0),
        "cls": lambda r: r[0],
        "last": lambda r: r[-1],
    }
    return np.stack([of[kind](row) for row in rows])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("on", TARGETS)
def test_pool_takes_the_valid_tokens(kind: PoolKind, on: str) -> None:
    x = hidden()
    want = pooled(kind, [r[m != 0] for r, m in zip(x[:4], MASK[:4], strict=True)])
    (means,) = meaning(Pool(kind), x, MASK, symbols=NAMES)
    (got,) = lowered(on, Pool(kind), x, MASK, symbols=NAMES)
    np.testing.assert_allclose(means[:4], want, atol=1e-6)
    np.testing.assert_allclose(got, means, atol=1e-6)  # the row of padding too
    assert np.isfinite(got).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("on", TARGETS)
def test_pool_without_a_mask(kind: PoolKind, on: str) -> None:
    x = hidden()
    (got,) = lowered(on, Pool(kind), x, None, symbols=NAMES)
    np.testing.assert_allclose(got, pooled(kind, list(x)), atol=1e-6)
    np.testing.assert_allclose(meaning(Pool(kind), x, None, symbols=NAMES)[0], got, atol=1e-6)


@pytest.mark.parametrize("on", TARGETS)
def test_l2_normalize(on: str) -> None:
    x = hidden()[0]
    x[2] = 0
    want = x / np.maximum(np.linalg.norm(x.astype(np.float64), axis=-1, keepdims=True), 1e-12)
    np.testing.assert_allclose(meaning(L2Normalize(), x)[0], want, atol=1e-6)
    np.testing.assert_allclose(lowered(on, L2Normalize(), x)[0], want, atol=1e-6)


@pytest.mark.parametrize("on", TARGETS)
def test_positions(on: str) -> None:
    ids = np.array([[5, 6, 7, 1, 1], [1, 1, 8, 9, 3], [4, 1, 4, 1, 4]])
    want = np.array([[2, 3, 4, 1, 1], [1, 1, 2, 3, 4], [2, 1, 3, 1, 4]])
    np.testing.assert_array_equal(meaning(PositionsFromIds(1), ids)[0], want)
    for op in (PositionsFromIds(1), PositionsFromIds(0), Columns(), AllOnes()):
        np.testing.assert_array_equal(
            lowered(on, op, ids, symbols=NAMES)[0], meaning(op, ids, symbols=NAMES)[0], err_msg=op.name
        )
    np.testing.assert_array_equal(meaning(Columns(), ids, symbols=NAMES)[0], [[0, 1, 2, 3, 4]])
    np.testing.assert_array_equal(meaning(AllOnes(), ids, symbols=NAMES)[0], np.ones((3, 5)))


def exact_bucket(distance: int) -> int:
    """MPNet's bucket in whole numbers: 8 + floor(2 log2(n / 8)) = 8 + the number of k with n^2 >= 64 * 2^k."""
    n = abs(distance)
    side = n if n < 8 else min(8 + sum(n * n >= 64 * 2**k for k in range(1, 40)), 15)
    return side + 16 * (distance > 0)


def test_buckets_are_exact_at_any_distance() -> None:
    distances = np.arange(-5000, 5001)
    np.testing.assert_array_equal(RelativeBias().bucket(distances), [exact_bucket(int(d)) for d in distances])


@pytest.mark.parametrize("length", [1, 7, 300])
@pytest.mark.parametrize("on", TARGETS)
def test_relative_bias(length: int, on: str) -> None:
    table = np.random.default_rng(2).standard_normal((32, 3)).astype(np.float32)
    ids = np.zeros((2, length), np.int64)
    want = np.array([[table[exact_bucket(j - i)] for j in range(length)] for i in range(length)]).transpose(2, 0, 1)
    (means,) = meaning(RelativeBias(), ids, table)
    np.testing.assert_array_equal(means[0], want)
    np.testing.assert_array_equal(lowered(on, RelativeBias(), ids, table)[0], means)


@pytest.mark.parametrize(("buckets", "reach"), [(32, 128), (16, 20), (8, 100), (64, 1000)])
def test_relative_bias_of_other_sizes(buckets: int, reach: int) -> None:
    """The lowering looks buckets up as far as `max_distance`; further away the formula must say the same as there."""
    op = RelativeBias(buckets, reach)
    table = np.random.default_rng(3).standard_normal((buckets, 2)).astype(np.float32)
    ids = np.zeros((1, 3 * reach), np.int64)
    np.testing.assert_array_equal(lowered("portable", op, ids, table)[0], meaning(op, ids, table)[0])
