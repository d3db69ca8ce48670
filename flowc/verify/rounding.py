"""How far rounding may move a result, derived from the numbers that it is computed of.

One rounding moves a number by at most the unit roundoff u of its dtype (float32: 2**-24), as a share of it. What that
does to a result is its conditioning, and that is seen by doing it: the meaning is computed again of operands that are
moved by about a rounding at random, each number on its own and each row as a whole (sums of many numbers of one sign
go wrong as a whole). The root mean square of what comes out is the *spread*. A kernel that sums in another order, or
works a function out in another way, is as far from the meaning as that, within a factor that `SURE` covers.

    operator    operands moved, the operator's meaning computed again, or its spread in closed form where it has one
    graph       every value inside of the graph moved, the graph run again (see `perturbed.py`)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from flowc.ir.op import Op

Array = np.ndarray[Any, np.dtype[Any]]

UNIT_ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "float16": 2.0**-11, "bfloat16": 2.0**-8}
"""The largest relative error of one rounding, by dtype."""

EACH, ROW = 4.0, 2.0
"""How many units of roundoff a number is moved by on its own, and with its row, as root mean squares."""

STEPS: Array = np.linspace(-(3**0.5), 3**0.5, 256)
"""What these are multiplied by, drawn alike. Were it 1 or -1, two keys whose scores hang on one large channel each
would be moved alike in every other draw, and their softmax by nothing."""

PROBES, OPERATOR_PROBES = 3, 6
"""How often a moved graph and a moved operator are computed: what comes of few sources can cancel in one that does not
in the next. A probability may hang on the scores of two keys alone, and a graph has thousands of them."""

SURE = 10.0
"""How many spreads a sound result may be off.

Of 1e9 normal numbers the largest is 6 root mean squares from their mean; sums of thousands of numbers in other orders,
and a spread that was taken of three draws, ask for the rest.
"""

NEIGHBOURS = 0.5
"""Share of the spread of neighbouring rows that a number may be off."""

NARROW = 16
"""Numbers that it takes to tell their root mean square; narrower rows are taken together."""


def unit_roundoff(dtype: str) -> float:
    """The unit roundoff of an element type; 0 of one that does not round."""
    return UNIT_ROUNDOFF.get(dtype, 0.0)


def rounds(array: Array) -> bool:
    """Whether the numbers of an array are rounded ones."""
    return unit_roundoff(array.dtype.name) > 0


def moved(array: Array, unit: float, rng: np.random.Generator) -> Array:
    """An array whose numbers, and whose rows as a whole, are moved by a few units of roundoff at random."""
    steps = rng.integers(0, len(STEPS), array.shape, np.uint8)
    rows = rng.integers(0, len(STEPS), (*array.shape[:-1], 1) if array.ndim else (), np.uint8)
    each, row = ((1 + step * unit * STEPS).astype(array.dtype) for step in (EACH, ROW))
    return array * each[steps] * row[rows]


def operator_allowance(
    op: Op, operands: Sequence[Array | None], fed: Sequence[bool], results: Sequence[Array], wheres: Sequence[Array],
    *, known: bool = True,
) -> list[Array]:  # fmt: skip
    """Allowed error of each result (float64, its shape) of an operator that was fed these operands.

    `fed`: which operands are no weights; `wheres`: where each result is specified, broadcastable to it. `known`: the
    operands are the very numbers that the other side was fed, so that an exact operator leaves its own rounding only.
    """
    squares: list[Array] = [np.zeros(r.shape) for r in results]
    floats = [i for i, a in enumerate(operands) if fed[i] and a is not None and a.dtype.kind == "f"]
    if floats and not (op.exact and known):
        squares = _closed(op, operands, fed, results) or _drawn(op, operands, floats, results)
    allowed: list[Array] = []
    for result, square, last, where in zip(results, squares, op.rounding(operands, results), wheres, strict=True):
        unit = unit_roundoff(result.dtype.name)
        # One rounding, or as much as the moves of operands come to where they do not cancel by chance.
        least = unit if op.exact and known else ROW * unit
        allowed.append(allowance(square + (least * np.asarray(last, np.float64)) ** 2, where))
    return allowed


def _closed(
    op: Op, operands: Sequence[Array | None], fed: Sequence[bool], results: Sequence[Array]
) -> list[Array] | None:
    """The operator's own mean squares; only where its first operand alone is no weight, as they are meant for."""
    if any(fed[1:]):
        return None
    unit = unit_roundoff(results[0].dtype.name)
    found = op.spread(operands, results, EACH * unit, ROW * unit)
    return None if found is None else list(found)


def _drawn(op: Op, operands: Sequence[Array | None], floats: Sequence[int], results: Sequence[Array]) -> list[Array]:
    """Mean squares of what comes out when the operands are moved at random."""
    squares: list[Array] = [np.zeros(r.shape) for r in results]
    for probe in range(OPERATOR_PROBES):
        rng = np.random.default_rng([probe, len(operands)])
        others = list(operands)
        for i in floats:
            array = operands[i]
            assert array is not None
            others[i] = moved(array, unit_roundoff(array.dtype.name), rng)
        for square, result, other in zip(squares, results, op.reference(*others), strict=True):
            if result.dtype.kind == "f":
                square += (other.astype(np.float64) - result) ** 2 / OPERATOR_PROBES
    return squares


def allowance(squares: Array, where: Array) -> Array:
    """Allowed error of numbers with these mean squares of spread.

    A number may be off by its own spread, by that of its row, and by a share of that of its neighbouring rows: few
    draws of what moves a whole row (a channel of keys that a recurrent state is the product of) may cancel by chance.
    """
    sound = np.where(np.isfinite(squares) & where, squares, 0.0)
    total = sound + row_means(sound, where)
    if sound.ndim > 1:
        total = total + NEIGHBOURS**2 * row_means(sound, where, rows=True)
    return SURE * np.sqrt(total)


def row_means(squares: Array, where: Array, *, rows: bool = False) -> Array:
    """The mean over each row (last axis, and as many before it as make `NARROW` numbers), broadcastable.

    Only numbers that move at all count: new keys stand among cached ones, which are copied. With `rows` over at least
    the last two axes.
    """
    axes: tuple[int, ...] = ()
    for axis in reversed(range(squares.ndim)):
        axes = (*axes, axis)
        if len(axes) > rows and np.prod([squares.shape[a] for a in axes]) >= NARROW:
            break
    kept = np.broadcast_to(where, squares.shape) & (squares > 0)
    total = np.where(kept, squares, 0.0).sum(axis=axes, keepdims=True)
    return total / np.maximum(kept.sum(axis=axes, keepdims=True), 1)
