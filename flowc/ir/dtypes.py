"""Element types: which there are, and how operators say what they take.

    class Linear(Op, name="linear", operands=("x", "weight", "bias"), dtypes={"x weight bias": FLOAT})

Operands that stand in one entry must be of one type, and that type one of those named. A mix is an error of the spec or
of a pass, never a conversion in silence: `Cast` is an operator.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import ml_dtypes
import numpy as np

from flowc.ir.types import DTYPES, ShapeError, TensorType

Allowed = tuple[str, ...]

FLOAT: Allowed = ("float32", "float16", "bfloat16", "float64")
INTEGER: Allowed = ("int64", "int32")
NUMBER: Allowed = (*FLOAT, *INTEGER)
BOOL: Allowed = ("bool",)
ANY: Allowed = DTYPES

_SPELT: dict[Allowed, str] = {
    FLOAT: "a float type",
    INTEGER: "an integer type",
    NUMBER: "a type of numbers",
    BOOL: "bool",
}

Declared = Mapping[str, Allowed]
"""Groups of operands, their names separated by spaces, and the types that each group may have."""

Groups = tuple[tuple[tuple[int, ...], Allowed], ...]
"""The same with the operands' places."""

_NUMPY = {"bfloat16": np.dtype(ml_dtypes.bfloat16)}


def numpy_dtype(name: str) -> np.dtype[np.generic]:
    """Numpy's element type of one of `DTYPES`."""
    return _NUMPY.get(name) or np.dtype(name)


def widened(x: np.ndarray[Any, np.dtype[Any]]) -> np.ndarray[Any, np.dtype[Any]]:
    """Half-precision numbers as float32, in which sums over them are taken; others as they are."""
    return x.astype(np.float32) if x.dtype.itemsize == 2 else x


def largest(name: str) -> float:
    """The largest finite number of a float type."""
    return float(ml_dtypes.finfo(numpy_dtype(name)).max)  # pyright: ignore[reportUnknownArgumentType]


def groups_of(operands: Sequence[str], declared: Declared) -> Groups:
    """The declared groups by the operands' places; TypeError unless each operand stands in exactly one."""
    named = [name for names in declared for name in names.split()]
    if sorted(named) != sorted(operands):
        raise TypeError(f"element types are declared for {named}, the operands are {list(operands)}")
    return tuple((tuple(operands.index(n) for n in names.split()), allowed) for names, allowed in declared.items())


def require_dtypes(operands: Sequence[str], groups: Groups, types: Sequence[TensorType | None]) -> None:
    """Raise ShapeError where an operand is of a type that its operator does not take, or unlike its group."""
    for places, allowed in groups:
        present = ((operands[p], types[p]) for p in places if p < len(types))
        given = [(name, type_.dtype) for name, type_ in present if type_ is not None]
        for name, dtype in given:
            if dtype not in allowed:
                raise ShapeError(f"'{name}' is {dtype}; it must be {_SPELT.get(allowed) or ' or '.join(allowed)}")
            if dtype != given[0][1]:
                raise ShapeError(f"'{name}' is {dtype}, and '{given[0][0]}' is {given[0][1]}")
