"""Types of values: an element type and a shape whose dimensions are numbers or named symbols.

float32[batch_size, sequence_length, 576]
"""

from __future__ import annotations

from dataclasses import dataclass

Dim = int | str
"""A known size, or the name of one that is known at run time (sums are written `a + b`)."""

Shape = tuple[Dim, ...]

BATCH = "batch_size"
SEQUENCE = "sequence_length"
PAST = "past_sequence_length"
TOTAL = "total_sequence_length"


def sequence_of(component: str) -> str:
    """How other components, and its own files, call the number of a component's tokens."""
    return f"{component}_{SEQUENCE}"


DTYPES = ("float32", "float16", "bfloat16", "float64", "int64", "int32", "bool")


class ShapeError(Exception):
    """Shapes or types that do not fit an operator; the message says which and why."""


@dataclass(frozen=True, slots=True)
class TensorType:
    """Element type (a numpy dtype name) and shape of a value."""

    dtype: str
    shape: Shape

    @property
    def rank(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}[{', '.join(map(str, self.shape))}]"

    def with_shape(self, *shape: Dim) -> TensorType:
        """The same element type with another shape."""
        return TensorType(self.dtype, shape)

    def with_last(self, size: Dim) -> TensorType:
        """The same type with another last dimension."""
        return TensorType(self.dtype, (*self.shape[:-1], size))


def known(dim: Dim, what: str) -> int:
    """The size of a dimension that an operator needs at compile time."""
    if isinstance(dim, int):
        return dim
    raise ShapeError(f"{what} must be known when compiling, but is '{dim}'")


def add_dims(a: Dim, b: Dim) -> Dim:
    """The sum of two dimensions, symbolic when one of them is; its numbers stand together at the end."""
    if isinstance(a, int) and isinstance(b, int):
        return a + b
    if a == PAST:
        return TOTAL  # by its meaning: past and new tokens together
    number, symbols = 0, list[str]()
    for term in " + ".join(map(str, (a, b))).replace(" - ", " + -").split(" + "):
        if term.removeprefix("-").isdecimal():
            number += int(term)
        else:
            symbols.append(term)
    text = " + ".join(symbols)
    return text if number == 0 else f"{text} {'+' if number > 0 else '-'} {abs(number)}"


def broadcast(a: Shape, b: Shape) -> Shape:
    """Shape of an elementwise operation (numpy rules); symbols are equal when their names are."""
    if len(a) < len(b):
        a = (1,) * (len(b) - len(a)) + a
    else:
        b = (1,) * (len(a) - len(b)) + b
    out: list[Dim] = []
    for x, y in zip(a, b, strict=True):
        if x != y and 1 not in (x, y):
            raise ShapeError(f"shapes [{', '.join(map(str, a))}] and [{', '.join(map(str, b))}] do not broadcast")
        out.append(y if x == 1 else x)
    return tuple(out)


def require(condition: bool, message: str) -> None:
    """Raise ShapeError with the message unless the condition holds."""
    if not condition:
        raise ShapeError(message)
