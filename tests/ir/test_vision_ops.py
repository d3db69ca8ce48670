"""Patches, tokens for every image, angles of patches: meaning against plain formulas, lowering against the meaning."""

from __future__ import annotations

import math

import numpy as np
import pytest

from flowc.ir.core.vision import ExpandBatch, PatchAngles, Patches
from flowc.ir.patch_rope import PatchRopeFacts
from tests.ir.running import TARGETS, lowered, meaning
from tests.oracle_io import Array

SIZES = [(12, 8, 4, 4), (13, 11, 4, 3), (7, 30, 7, 10), (5, 5, 5, 5), (9, 17, 2, 5)]
FIXED, OPEN = ("batch_size",), ("batch_size", "", "height", "width")


def pixels(rows: int, columns: int, batch: int = 2, channels: int = 3) -> Array:
    return np.random.default_rng(rows * columns).standard_normal((batch, channels, rows, columns)).astype(np.float32)


@pytest.mark.parametrize("on", TARGETS)
@pytest.mark.parametrize("symbols", [FIXED, OPEN])
@pytest.mark.parametrize(("rows", "columns", "high", "wide"), SIZES)
def test_patches_are_what_a_convolution_sees(
    rows: int, columns: int, high: int, wide: int, symbols: tuple[str, ...], on: str
) -> None:
    """Image by image and place by place, in the order of a kernel's values; what fills no patch is left out."""
    x = pixels(rows, columns)
    want = np.stack([
        np.stack([
            image[:, r * high : (r + 1) * high, c * wide : (c + 1) * wide].ravel()
            for r in range(rows // high) for c in range(columns // wide)
        ]) for image in x
    ])  # fmt: skip
    np.testing.assert_array_equal(meaning(Patches(high, wide), x, symbols=symbols)[0], want)
    np.testing.assert_array_equal(lowered(on, Patches(high, wide), x, symbols=symbols)[0], want)


@pytest.mark.parametrize("on", TARGETS)
@pytest.mark.parametrize("batch", [1, 4])
def test_expand_batch(batch: int, on: str) -> None:
    x = np.random.default_rng(0).standard_normal((1, 3, 5)).astype(np.float32)
    like = np.zeros((batch, 7, 2), np.float32)
    for got in (meaning(ExpandBatch(), x, like), lowered(on, ExpandBatch(), x, like)):
        np.testing.assert_array_equal(got[0], np.repeat(x, batch, axis=0))


def angle(facts: PatchRopeFacts, place: int, count: int, axis: int, band: int) -> float:
    """The angle of a row or column, in float64, as the papers write it."""
    bands = facts.head_dim // 4
    if facts.style == "centred":
        return 2 * math.pi * (2 * (place + 0.5) / count - 1) / facts.theta ** (4 * band / facts.head_dim)
    stretch = facts.reference[axis] / count if facts.reference else 1.0
    return place * stretch / facts.theta ** (band / bands)


FACTS = [
    PatchRopeFacts(100.0, 16, "centred", leading=5),
    PatchRopeFacts(50.0, 12, "centred"),
    PatchRopeFacts(10000.0, 16, "grid", leading=1),
    PatchRopeFacts(10000.0, 8, "grid", leading=1, reference=(3, 5)),
]


@pytest.mark.parametrize("on", TARGETS)
@pytest.mark.parametrize("facts", FACTS, ids=str)
@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (3, 4), (7, 2)])
def test_patch_angles(rows: int, columns: int, facts: PatchRopeFacts, on: str) -> None:
    bands = facts.head_dim // 4
    want = np.zeros((facts.leading + rows * columns, 2 * bands))
    for r in range(rows):
        for c in range(columns):
            row = want[facts.leading + r * columns + c]
            row[:bands] = [angle(facts, r, rows, 0, b) for b in range(bands)]
            row[bands:] = [angle(facts, c, columns, 1, b) for b in range(bands)]
    op, x = PatchAngles(facts, 4, 3), pixels(4 * rows + 1, 3 * columns + 2, batch=1)
    for cos, sin in (meaning(op, x), lowered(on, op, x, symbols=OPEN), lowered(on, op, x, symbols=FIXED)):
        np.testing.assert_allclose(cos[0], np.cos(want), atol=2e-6)
        np.testing.assert_allclose(sin[0], np.sin(want), atol=2e-6)
