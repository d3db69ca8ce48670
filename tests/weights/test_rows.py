"""Any range of a weight's rows is that range of the whole, made from no more of the checkpoint than it needs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from flowc.ir.weights.expressions import (
    Affine,
    Array,
    Concat,
    Constant,
    Generated,
    NegatedExp,
    Product,
    Reshape,
    Rows,
    Sum,
    Tensor,
    Transpose,
    Weight,
)

SHAPES = {"a": (6, 4), "b": (6, 4), "c": (3, 8), "row": (1, 4), "vector": (4,), "cube": (4, 3, 2), "scalar": ()}
VALUES = {n: np.random.default_rng(i).standard_normal(s).astype(np.float32) for i, (n, s) in enumerate(SHAPES.items())}


def tensor(name: str) -> Tensor:
    return Tensor(name, SHAPES[name])


def interleaved() -> Weight:
    """Rows of gate and up turn about, as a mixture of experts stores them: three experts of two rows each."""
    pairs = Transpose(Reshape(Concat((tensor("a"), tensor("b"))), (2, 6, 4)), (1, 0, 2))
    return Reshape(pairs, (3, 4, 4))


EXPRESSIONS: dict[str, tuple[Weight, Callable[[dict[str, Array]], Any]]] = {
    "tensor": (tensor("a"), lambda v: v["a"]),
    "rows": (Rows(tensor("a"), 1, 5), lambda v: v["a"][1:5]),
    "rows of a concat": (Rows(Concat((tensor("a"), tensor("b"))), 4, 9), lambda v: np.vstack([v["a"], v["b"]])[4:9]),
    "concat": (Concat((tensor("a"), tensor("b"), tensor("row"))), lambda v: np.vstack([v["a"], v["b"], v["row"]])),
    "wider rows": (Reshape(tensor("a"), (3, 8)), lambda v: v["a"].reshape(3, 8)),
    "narrower rows": (Reshape(tensor("c"), (12, 2)), lambda v: v["c"].reshape(12, 2)),
    "rows that fit no rows": (Reshape(tensor("a"), (8, 3)), lambda v: v["a"].reshape(8, 3)),
    "a reshape of a reshape": (Reshape(Reshape(tensor("a"), (2, 12)), (12, 2)), lambda v: v["a"].reshape(12, 2)),
    "inner axes exchanged": (Transpose(tensor("cube"), (0, 2, 1)), lambda v: v["cube"].transpose(0, 2, 1)),
    "first axes exchanged": (Transpose(tensor("cube"), (1, 0, 2)), lambda v: v["cube"].transpose(1, 0, 2)),
    "last axis first": (Transpose(tensor("cube"), (2, 0, 1)), lambda v: v["cube"].transpose(2, 0, 1)),
    "interleaved": (interleaved(), lambda v: np.stack([v["a"], v["b"]], axis=1).reshape(3, 4, 4)),
    "affine": (Affine(tensor("a"), 2.0, 1.0), lambda v: v["a"] * np.float32(2) + np.float32(1)),
    "negated exp": (NegatedExp(tensor("c")), lambda v: (-np.exp(v["c"].astype(np.float64))).astype(np.float32)),
    "product with a row": (Product(tensor("a"), tensor("row")), lambda v: v["a"] * v["row"]),
    "product with a vector": (Product(tensor("vector"), tensor("a")), lambda v: v["a"] * v["vector"]),
    "sum": (Sum(tensor("a"), tensor("b")), lambda v: v["a"] + v["b"]),
    "constant": (Constant(VALUES["c"]), lambda v: v["c"]),
    "generated": (Generated("made", (3, 8), lambda: VALUES["c"]), lambda v: v["c"]),
}
WHOLE = {"last axis first", "generated"}
"""What has to be made whole for any of its rows."""


class Reading:
    """Reads from VALUES and remembers the numbers that it gave at once at most."""

    def __init__(self) -> None:
        self.most = 0

    def __call__(self, name: str, rows: slice | None) -> Array:
        found = VALUES[name] if rows is None else VALUES[name][rows]
        self.most = max(self.most, found.size)
        return found


@pytest.mark.parametrize("name", EXPRESSIONS)
def test_every_range_is_that_of_the_whole(name: str) -> None:
    weight, meaning = EXPRESSIONS[name]
    want = meaning(VALUES)
    np.testing.assert_array_equal(weight.evaluate(Reading()), want)
    for start in range(weight.shape[0]):
        for stop in range(start + 1, weight.shape[0] + 1):
            found = weight.rows(Reading(), start, stop)
            np.testing.assert_array_equal(found, want[start:stop])
            assert found.dtype == want.dtype
            assert found.flags.c_contiguous


@pytest.mark.parametrize("name", [n for n in EXPRESSIONS if n not in {"constant", "generated"}])
def test_one_row_reads_little(name: str) -> None:
    weight, _ = EXPRESSIONS[name]
    reading = Reading()
    weight.rows(reading, 1, 2)
    assert weight.by_rows is (name not in WHOLE)
    if weight.by_rows:
        assert reading.most <= 16, "a row, and what lies in the same rows of the checkpoint"


def test_a_scalar_is_made_whole() -> None:
    assert not tensor("scalar").by_rows
    assert tensor("scalar").evaluate(Reading()).shape == ()
