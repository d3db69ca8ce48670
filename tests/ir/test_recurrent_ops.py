"""The gated delta rule, the causal convolution and parts of sequences: what they mean, and both lowerings of them."""

from __future__ import annotations

import numpy as np
import pytest

from flowc.ir.core.recurrent import CausalConv, DeltaScan
from flowc.ir.core.sequence import PartLike
from flowc.ir.graph import Value, infer
from flowc.ir.op import Op
from flowc.ir.types import ShapeError, TensorType
from tests.ir.running import TARGETS, lowered, meaning
from tests.oracle_io import Array

LENGTHS = (1, 2, 6)


def masks(rng: np.random.Generator, length: int, past: int) -> Array:
    """Three rows over past and new columns: nothing masked, gaps, all new ones masked."""
    mask = np.ones((3, past + length), np.int64)
    mask[1] = rng.integers(0, 2, past + length)
    mask[2, past:] = 0
    return mask


def conv_operands(rng: np.random.Generator, length: int, kernel: int) -> list[Array]:
    shapes = ((3, length, 5), (5, 1, kernel), (5,), (3, 5, kernel - 1))
    return [rng.standard_normal(shape).astype(np.float32) for shape in shapes]


def scan_operands(rng: np.random.Generator, length: int, key_heads: int, value_heads: int) -> list[Array]:
    widths = (key_heads * 4, key_heads * 4, value_heads * 3, value_heads, value_heads)
    q, k, v, g, beta = (rng.standard_normal((3, length, w)).astype(np.float32) for w in widths)
    state = rng.standard_normal((3, value_heads, 4, 3)).astype(np.float32)
    return [q, k, v, -np.abs(g), 1 / (1 + np.exp(-beta)), state]


@pytest.mark.parametrize("kernel", [2, 4])
@pytest.mark.parametrize("length", LENGTHS)
def test_a_convolution_is_over_the_valid_tokens_alone(length: int, kernel: int) -> None:
    rng = np.random.default_rng(length)
    x, weight, bias, state = conv_operands(rng, length, kernel)
    mask = masks(rng, length, past=2)
    y, after = meaning(CausalConv(), x, weight, bias, state, mask)
    for row in range(3):
        kept = mask[row, 2:] != 0
        for channel in range(5):
            line = np.concatenate([state[row, channel], x[row, kept, channel]])
            want = np.correlate(line, weight[channel, 0], "valid") + bias[channel]
            np.testing.assert_allclose(y[row, kept, channel], want[: kept.sum()], atol=1e-5)
            np.testing.assert_array_equal(after[row, channel], line[len(line) - kernel + 1 :])


@pytest.mark.parametrize("on", TARGETS)
@pytest.mark.parametrize("padded", [True, False], ids=["mask", "no mask"])
@pytest.mark.parametrize("carried", [True, False], ids=["state", "no state"])
@pytest.mark.parametrize("length", LENGTHS)
def test_convolution(length: int, carried: bool, padded: bool, on: str) -> None:
    rng = np.random.default_rng(length)
    x, weight, bias, state = conv_operands(rng, length, 4)
    operands = [x, weight, bias, state if carried else None, masks(rng, length, past=3) if padded else None]
    want = meaning(CausalConv(), *operands)
    for got, reference in zip(lowered(on, CausalConv(), *operands), want, strict=True):
        np.testing.assert_allclose(got, reference, atol=1e-5)


@pytest.mark.parametrize("on", TARGETS)
@pytest.mark.parametrize("padded", [True, False], ids=["mask", "no mask"])
@pytest.mark.parametrize("carried", [True, False], ids=["state", "no state"])
@pytest.mark.parametrize(("key_heads", "value_heads"), [(2, 2), (2, 6), (1, 3)])
@pytest.mark.parametrize("length", LENGTHS)
def test_delta_rule(length: int, key_heads: int, value_heads: int, carried: bool, padded: bool, on: str) -> None:
    rng = np.random.default_rng(length)
    *tokens, state = scan_operands(rng, length, key_heads, value_heads)
    operands = [*tokens, state if carried else None, masks(rng, length, past=3) if padded else None]
    op = DeltaScan(key_heads, value_heads, 0.7)
    for got, reference in zip(lowered(on, op, *operands), meaning(op, *operands), strict=True):
        np.testing.assert_allclose(got, reference, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("on", TARGETS)
@pytest.mark.parametrize("length", [31, 32, 33, 70])
def test_delta_rule_over_many_tokens(length: int, on: str) -> None:
    rng = np.random.default_rng(length)
    *tokens, state = scan_operands(rng, length, 2, 4)
    tokens[0], tokens[1] = (t / np.linalg.norm(t, axis=-1, keepdims=True) for t in tokens[:2])
    operands = [*tokens, state, masks(rng, length, past=1)]
    op = DeltaScan(2, 4, 0.5)
    for got, reference in zip(lowered(on, op, *operands), meaning(op, *operands), strict=True):
        np.testing.assert_allclose(got, reference, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("on", TARGETS)
@pytest.mark.parametrize("decay", [0.0, -1e-3, -40.0, "mixed", -np.inf], ids=str)
def test_delta_rule_of_tokens_that_are_all_alike(decay: float | str, on: str) -> None:
    """Where a power series for the inverse would cancel itself, and a difference of running sums its digits."""
    rng = np.random.default_rng(1)
    q, k, v, g, beta, state = scan_operands(rng, 100, 1, 2)
    k[:] = k[:, :1] / np.linalg.norm(k[:, :1], axis=-1, keepdims=True)
    g[:] = np.where(rng.random(g.shape) < 0.5, -1e-3, -300.0) if isinstance(decay, str) else decay
    beta[:] = 0.97
    op = DeltaScan(1, 2, 0.5)
    for got, reference in zip(
        lowered(on, op, q, k, v, g, beta, state), meaning(op, q, k, v, g, beta, state), strict=True
    ):
        np.testing.assert_allclose(got, reference, atol=2e-5, rtol=1e-5)


def test_a_masked_token_neither_decays_nor_writes() -> None:
    rng = np.random.default_rng(0)
    *tokens, state = scan_operands(rng, 4, 2, 4)
    mask = np.array([[1, 0, 1, 1], [0, 0, 0, 0], [1, 1, 0, 0]])
    op = DeltaScan(2, 4, 1.0)
    y, after = meaning(op, *tokens, state, mask)
    assert np.array_equal(after[1], state[1])
    for row, kept in enumerate(mask != 0):
        if kept.any():
            alone = meaning(op, *[t[row : row + 1, kept] for t in tokens], state[row : row + 1])
            np.testing.assert_allclose(y[row, kept], alone[0][0], atol=1e-6)
            np.testing.assert_allclose(after[row], alone[1][0], atol=1e-6)


@pytest.mark.parametrize("on", TARGETS)
@pytest.mark.parametrize("last", [True, False], ids=["last", "first"])
def test_parts_of_a_sequence(last: bool, on: str) -> None:
    x, like = np.arange(30, dtype=np.float32).reshape(2, 5, 3), np.zeros((2, 2, 7), np.float32)
    want = x[:, 3:] if last else x[:, :2]
    (found,) = meaning(PartLike(last), x, like)
    assert np.array_equal(found, want)
    (found,) = lowered(on, PartLike(last), x, like, symbols=("batch_size",))
    assert np.array_equal(found, want)


FLOAT = "float32"
UNFIT: list[tuple[Op, list[tuple[int, ...] | None], str]] = [
    (DeltaScan(2, 3, 1.0), [(1, 2, 8), (1, 2, 8), (1, 2, 9), (1, 2, 3), (1, 2, 3)], "cannot share"),
    (DeltaScan(2, 4, 1.0), [(1, 2, 8), (1, 2, 6), (1, 2, 8), (1, 2, 4), (1, 2, 4)], "differ"),
    (DeltaScan(2, 4, 1.0), [(1, 2, 7), (1, 2, 7), (1, 2, 8), (1, 2, 4), (1, 2, 4)], "multiple"),
    (DeltaScan(2, 4, 1.0), [(1, 2, 8), (1, 2, 8), (1, 2, 8), (1, 2, 3), (1, 2, 4)], "g "),
    (DeltaScan(2, 4, 1.0), [(1, 2, 8), (1, 2, 8), (1, 2, 8), (1, 2, 4), (1, 2, 4), (1, 4, 2, 4)], "state"),
    (CausalConv(), [(1, 2, 5), (4, 1, 3)], "weight"),
    (CausalConv(), [(1, 2, 5), (5, 1, 1)], "one tap"),
    (CausalConv(), [(1, 2, 5), (5, 1, 3), None, (1, 5, 3)], "state"),
    (PartLike(True), [(1, 2, 5), (1, 3, 5)], "no 3 tokens"),
]


@pytest.mark.parametrize(("op", "shapes", "says"), UNFIT)
def test_operands_that_do_not_fit(op: Op, shapes: list[tuple[int, ...] | None], says: str) -> None:
    with pytest.raises(ShapeError, match=says):
        infer(op, [None if s is None else Value(str(i), TensorType(FLOAT, s)) for i, s in enumerate(shapes)])
