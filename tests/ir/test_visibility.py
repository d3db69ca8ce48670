"""How far a query sees: its meaning token by token, and what both targets make of it."""

from __future__ import annotations

import numpy as np
import pytest

from flowc.ir.core.attention import AttentionMask
from flowc.ir.visibility import CAUSAL, EVERYTHING, Visibility
from tests.ir.running import TARGETS, Array, lowered, meaning

B, TOTAL, QUERIES = 3, 9, 6
MASK = np.ones((B, TOTAL), np.int64)
MASK[1, :3], MASK[2, 4:6], MASK[2, -1] = 0, 0, 0

SEEN = [
    CAUSAL, Visibility.before(1), Visibility.before(3), Visibility.around(1), Visibility.around(2),
    Visibility(left=1, right=3), Visibility(left=4), Visibility(right=0), Visibility(True, 2, 1), EVERYTHING,
]  # fmt: skip


def token_by_token(seen: Visibility, mask: Array) -> Array:
    """Bool [batch, 1, queries, total], in words: no padding, no later column, not too many valid tokens away."""
    keep = np.zeros((B, 1, QUERIES, TOTAL), bool)
    for row, query, key in np.ndindex(B, QUERIES, TOTAL):
        at = TOTAL - QUERIES + query
        first, last = min(at, key), max(at, key)
        between = int(mask[row, first + 1 : last + 1].sum())
        before, after = (between, 0) if key <= at else (0, between)
        keep[row, 0, query, key] = (
            mask[row, key] != 0
            and (not seen.causal or key <= at)
            and (seen.left is None or before <= seen.left)
            and (seen.right is None or after <= seen.right)
        )
    return keep


@pytest.mark.parametrize("seen", SEEN, ids=str)
def test_what_each_query_sees(seen: Visibility) -> None:
    new = np.zeros((B, QUERIES), np.int64)
    (mask,) = meaning(AttentionMask(seen), new, MASK)
    np.testing.assert_array_equal(mask, token_by_token(seen, MASK))


@pytest.mark.parametrize("on", TARGETS)
@pytest.mark.parametrize("seen", SEEN, ids=str)
def test_what_a_target_lets_each_query_see(seen: Visibility, on: str) -> None:
    new = np.zeros((B, QUERIES), np.int64)
    (mask,) = lowered(on, AttentionMask(seen), new, MASK)
    np.testing.assert_array_equal(mask, token_by_token(seen, MASK))


def test_its_numbers() -> None:
    assert [s.window for s in (CAUSAL, Visibility.before(1), Visibility.before(4096))] == [None, 1, 4096]
    assert [s.span for s in (EVERYTHING, CAUSAL, Visibility.before(4))] == [None, None, 4]
    assert [s.span for s in (Visibility.around(3), Visibility(right=2), Visibility(True, 2, 9))] == [7, 3, 3]
    assert [s.unlimited for s in (EVERYTHING, CAUSAL, Visibility(left=3), Visibility(right=3))] == [True, *[False] * 3]
    assert Visibility.before(None) == CAUSAL
    assert Visibility.around(None) == EVERYTHING


@pytest.mark.parametrize("seen", SEEN, ids=str)
@pytest.mark.parametrize("tokens", [1, 2, 3, 4, 5, None])
def test_a_bound_that_no_token_lies_beyond_is_none(seen: Visibility, tokens: int | None) -> None:
    lean = seen.within(tokens)
    size = tokens or TOTAL
    np.testing.assert_array_equal(lean.allowed(size, size, None), seen.allowed(size, size, None))
    assert tokens is not None or lean == seen
    assert all(side is None or side < size - 1 for side in (lean.left, lean.right)) or tokens is None


def test_it_reads_well() -> None:
    assert [str(s) for s in (EVERYTHING, CAUSAL, Visibility.before(4))] == [
        "everything",
        "causal",
        "causal, window 4",
    ]
    assert [str(s) for s in (Visibility.around(2), Visibility(left=1, right=3))] == [
        "2 on both sides",
        "window 2, 3 ahead",
    ]
    assert repr(CAUSAL) == "<causal>"
