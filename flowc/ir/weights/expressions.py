"""Weights as expressions over named tensors of a checkpoint.

    concat(w"q.weight", w"k.weight", w"v.weight"; 0)

An expression knows its shape and type without reading data. It is evaluated when the data file is written, one at a
time and row by row where it can be, by plain elementwise numpy: no BLAS, so the bytes do not depend on the machine. Two
expressions with the same `key` hold the same bytes and are stored once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from flowc.ir.dtypes import numpy_dtype
from flowc.ir.types import ShapeError, require

Array = np.ndarray[Any, np.dtype[Any]]
Read = Callable[[str, slice | None], Array]
"""Reads a named tensor of the checkpoint, or a range of its rows."""

LONGEST_KEY = 480
"""Characters of a key that is spelled out."""

MOST_INTERLEAVED = 64
"""Groups whose rows a transpose takes turn about without making the whole."""


@dataclass(frozen=True)
class Weight:
    """Base of all weight expressions."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the result."""
        raise NotImplementedError

    @property
    def dtype(self) -> str:
        """Element type of the result."""
        return "float32"

    @cached_property
    def key(self) -> str:
        """Canonical text; equal texts mean equal values. Spelled once: those that are made of this one ask again.

        Of a long text the beginning and a digest: an expression of hundreds of parts is compared, and asked for again,
        as fast as one of two.
        """
        text = self.spell()
        if len(text) <= LONGEST_KEY:
            return text
        return f"{text[: LONGEST_KEY // 2]}…#{hashlib.sha256(text.encode()).hexdigest()[:32]}"

    def spell(self) -> str:
        """Makes the key."""
        raise NotImplementedError

    @property
    def operands(self) -> tuple[Weight, ...]:
        """Expressions that this one is computed from."""
        return ()

    @property
    def by_rows(self) -> bool:
        """Whether a range of rows takes no more memory than those rows."""
        return False

    def evaluate(self, read: Read) -> Array:
        """The values, C-contiguous, in `dtype`."""
        return self.rows(read, 0, self.shape[0])

    def rows(self, read: Read, start: int, stop: int) -> Array:
        """Rows `start:stop` of the first axis, C-contiguous, in `dtype`."""
        return np.ascontiguousarray(self.evaluate(read)[start:stop])

    @property
    def nbytes(self) -> int:
        """Size of the result in bytes."""
        return prod(self.shape) * numpy_dtype(self.dtype).itemsize

    def tensors(self) -> Iterator[Tensor]:
        """All named tensors that the expression reads."""
        if isinstance(self, Tensor):
            yield self
        for operand in self.operands:
            yield from operand.tensors()

    def __str__(self) -> str:
        return self.key


@dataclass(frozen=True)
class Derived(Weight):
    """Base of what is made from one other weight, with its shape and type unless a subclass says otherwise."""

    of: Weight

    @property
    def shape(self) -> tuple[int, ...]:
        return self.of.shape

    @property
    def dtype(self) -> str:
        return self.of.dtype

    @property
    def operands(self) -> tuple[Weight, ...]:
        return (self.of,)

    @property
    def by_rows(self) -> bool:
        return self.of.by_rows


@dataclass(frozen=True)
class Elementwise(Derived):
    """Base of what is made from one other weight, number by number."""

    def apply(self, values: Array) -> Array:
        """The results for some of the values."""
        raise NotImplementedError

    def evaluate(self, read: Read) -> Array:
        return np.asarray(self.apply(self.of.evaluate(read)), order="C")

    def rows(self, read: Read, start: int, stop: int) -> Array:
        return np.asarray(self.apply(self.of.rows(read, start, stop)), order="C")


@dataclass(frozen=True)
class Broadcast(Weight):
    """Base of what is made from two weights, element by element, with numpy broadcasting."""

    a: Weight
    b: Weight

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(np.broadcast_shapes(self.a.shape, self.b.shape))

    @property
    def dtype(self) -> str:
        return self.a.dtype

    @property
    def operands(self) -> tuple[Weight, ...]:
        return (self.a, self.b)

    @property
    def by_rows(self) -> bool:
        return bool(self.shape) and all(w.by_rows or not self._has_rows(w) for w in self.operands)

    def apply(self, a: Array, b: Array) -> Array:
        """The results for some of the rows."""
        raise NotImplementedError

    def evaluate(self, read: Read) -> Array:
        return np.asarray(self.apply(self.a.evaluate(read), self.b.evaluate(read)), order="C")

    def rows(self, read: Read, start: int, stop: int) -> Array:
        a, b = (
            w.rows(read, start, stop) if self._has_rows(w) else w.evaluate(read) for w in self.operands
        )  # fmt: skip
        return np.asarray(self.apply(a, b), order="C")

    def _has_rows(self, operand: Weight) -> bool:
        """Whether an operand has a row for each row of the result, so none that all rows share."""
        return len(operand.shape) == len(self.shape) and operand.shape[0] == self.shape[0]


@dataclass(frozen=True)
class Tensor(Weight):
    """A tensor of the checkpoint, read as `as_dtype`."""

    name: str
    sizes: tuple[int, ...]
    as_dtype: str = "float32"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.sizes

    @property
    def dtype(self) -> str:
        return self.as_dtype

    def spell(self) -> str:
        return f'w"{self.name}"{_typed(self.dtype)}'

    @property
    def by_rows(self) -> bool:
        return bool(self.sizes)

    def evaluate(self, read: Read) -> Array:
        return np.asarray(read(self.name, None), dtype=numpy_dtype(self.dtype), order="C")

    def rows(self, read: Read, start: int, stop: int) -> Array:
        return np.ascontiguousarray(read(self.name, slice(start, stop)), dtype=numpy_dtype(self.dtype))


@dataclass(frozen=True, eq=False)
class Constant(Weight):
    """Values that the compiler computed, held in memory; meant for small ones."""

    values: Array
    label: str = "const"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.values.shape

    @property
    def dtype(self) -> str:
        return self.values.dtype.name

    def spell(self) -> str:
        digest = hashlib.sha256(np.ascontiguousarray(self.values).tobytes()).hexdigest()[:16]
        return f"{self.label}<{self.dtype}{list(self.shape)} {digest}>"

    @property
    def by_rows(self) -> bool:
        return bool(self.values.shape)

    def evaluate(self, read: Read) -> Array:
        return np.asarray(self.values, order="C")


@dataclass(frozen=True)
class Generated(Weight):
    """Values given by a function of compile-time facts (a rope table), made when they are written.

    `label` must name every fact that the values depend on.
    """

    label: str
    sizes: tuple[int, ...]
    make: Callable[[], Array]
    as_dtype: str = "float32"

    @property
    def shape(self) -> tuple[int, ...]:
        return self.sizes

    @property
    def dtype(self) -> str:
        return self.as_dtype

    def spell(self) -> str:
        return f"{self.label}{_typed(self.dtype)}"

    def evaluate(self, read: Read) -> Array:
        values = np.ascontiguousarray(self.make(), dtype=numpy_dtype(self.dtype))
        require(values.shape == self.sizes, f"{self.label}: made {values.shape}, declared {self.sizes}")
        return values


@dataclass(frozen=True)
class Rows(Derived):
    """Rows `start:stop` of the first axis."""

    start: int
    stop: int

    def __post_init__(self) -> None:
        rows = self.of.shape[0]
        require(0 <= self.start < self.stop <= rows, f"rows {self.start}:{self.stop} of {self.of.key} with {rows} rows")

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.stop - self.start, *self.of.shape[1:])

    def spell(self) -> str:
        return f"rows({self.of.key}; {self.start}:{self.stop})"

    def rows(self, read: Read, start: int, stop: int) -> Array:
        return self.of.rows(read, self.start + start, self.start + stop)


@dataclass(frozen=True)
class Concat(Weight):
    """Parts joined along the first axis (rows), as packed projections need."""

    parts: tuple[Weight, ...]

    def __post_init__(self) -> None:
        tails = {p.shape[1:] for p in self.parts}
        require(len(tails) == 1, f"cannot join rows of shapes {[p.shape for p in self.parts]}")

    @property
    def shape(self) -> tuple[int, ...]:
        return (sum(p.shape[0] for p in self.parts), *self.parts[0].shape[1:])

    @property
    def dtype(self) -> str:
        return self.parts[0].dtype

    def spell(self) -> str:
        return f"concat({', '.join(p.key for p in self.parts)}; 0)"

    @property
    def operands(self) -> tuple[Weight, ...]:
        return self.parts

    @property
    def by_rows(self) -> bool:
        return all(p.by_rows for p in self.parts)

    def rows(self, read: Read, start: int, stop: int) -> Array:
        found: list[Array] = []
        first = 0
        for part in self.parts:
            last = first + part.shape[0]
            if start < last and first < stop:
                found.append(part.rows(read, max(start, first) - first, min(stop, last) - first))
            first = last
        return found[0] if len(found) == 1 else np.concatenate(found)


@dataclass(frozen=True)
class Reshape(Derived):
    """The same elements in row-major order under another shape."""

    sizes: tuple[int, ...]

    def __post_init__(self) -> None:
        if prod(self.sizes) != prod(self.of.shape):
            raise ShapeError(f"cannot give {self.of.key} of shape {list(self.of.shape)} the shape {list(self.sizes)}")

    @property
    def shape(self) -> tuple[int, ...]:
        return self.sizes

    def spell(self) -> str:
        return f"reshape({self.of.key}; {'x'.join(map(str, self.sizes))})"

    @property
    def by_rows(self) -> bool:
        return bool(self.sizes) and self.of.by_rows

    def evaluate(self, read: Read) -> Array:
        return self.of.evaluate(read).reshape(self.sizes)

    def rows(self, read: Read, start: int, stop: int) -> Array:
        of = self.of
        while isinstance(of, Reshape):  # whose rows may be far larger than those asked for
            of = of.of
        width, row = prod(of.shape[1:]), prod(self.sizes[1:])
        if not width or not row:
            return self.evaluate(read)[start:stop]
        first, last = start * row // width, -(-stop * row // width)
        flat = of.rows(read, first, last).reshape(-1)
        begin = start * row - first * width
        return flat[begin : begin + (stop - start) * row].reshape(stop - start, *self.sizes[1:])


@dataclass(frozen=True)
class Transpose(Derived):
    """Axes in another order."""

    axes: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.of.shape[a] for a in self.axes)

    def spell(self) -> str:
        return f"transpose({self.of.key}; {','.join(map(str, self.axes))})"

    @property
    def by_rows(self) -> bool:
        return self.of.by_rows and (
            self.axes[0] == 0 or (self._swaps_first_two and self.of.shape[0] <= MOST_INTERLEAVED)
        )

    @property
    def _swaps_first_two(self) -> bool:
        return self.axes == (1, 0, *range(2, len(self.axes)))

    def evaluate(self, read: Read) -> Array:
        return np.ascontiguousarray(self.of.evaluate(read).transpose(self.axes))

    def rows(self, read: Read, start: int, stop: int) -> Array:
        if self.axes[0] == 0:
            return np.ascontiguousarray(self.of.rows(read, start, stop).transpose(self.axes))
        if not self._swaps_first_two:
            return super().rows(read, start, stop)
        groups, size, *inner = self.of.shape
        flat = Reshape(self.of, (groups * size, *inner))
        picked = [flat.rows(read, g * size + start, g * size + stop) for g in range(groups)]
        return np.stack(picked, axis=1)


@dataclass(frozen=True)
class Affine(Elementwise):
    """`of * scale + shift` in float32, element by element (Gemma's 1 + w; the embedding scale)."""

    scale: float = 1.0
    shift: float = 0.0

    def spell(self) -> str:
        return f"affine({self.of.key}; {self.scale!r}, {self.shift!r})"

    def apply(self, values: Array) -> Array:
        if self.scale != 1.0:
            values = values * values.dtype.type(self.scale)
        if self.shift != 0.0:
            values = values + values.dtype.type(self.shift)
        return values


@dataclass(frozen=True)
class Product(Broadcast):
    """Elementwise product with numpy broadcasting (a per-channel scale folded into a matrix)."""

    def spell(self) -> str:
        return f"mul({self.a.key}, {self.b.key})"

    def apply(self, a: Array, b: Array) -> Array:
        return a * b


@dataclass(frozen=True)
class Sum(Broadcast):
    """Elementwise sum with numpy broadcasting (position and token-type tables that always meet)."""

    def spell(self) -> str:
        return f"add({self.a.key}, {self.b.key})"

    def apply(self, a: Array, b: Array) -> Array:
        return a + b


@dataclass(frozen=True)
class NegatedExp(Elementwise):
    """`-exp(of)`, element by element, in float64 and then rounded (the decay rate of a gated DeltaNet's `A_log`)."""

    def spell(self) -> str:
        return f"-exp({self.of.key})"

    def apply(self, values: Array) -> Array:
        return (-np.exp(values.astype(np.float64))).astype(values.dtype)


@dataclass(frozen=True)
class Cast(Elementwise):
    """The same numbers in another element type, each rounded to the nearest (ties to even).

    What is too large for the type becomes infinite, which a build refuses by name.
    """

    to: str

    @property
    def dtype(self) -> str:
        return self.to

    def spell(self) -> str:
        return f"cast({self.of.key}; {self.to})"

    def apply(self, values: Array) -> Array:
        with np.errstate(over="ignore"):
            return values.astype(numpy_dtype(self.to))


def cast_weight(weight: Weight, dtype: str) -> Weight:
    """A weight in another element type; rows and joins stay outermost, so that parts of one are found in the other."""
    if weight.dtype == dtype:
        return weight
    match weight:
        case Constant():
            return Constant(weight.values.astype(numpy_dtype(dtype)), weight.label)
        case Concat():
            return Concat(tuple(cast_weight(part, dtype) for part in weight.parts))
        case Rows():
            return Rows(cast_weight(weight.of, dtype), weight.start, weight.stop)
        case _:
            return Cast(weight, dtype)


def _typed(dtype: str) -> str:
    """What a key says of an element type: nothing of float32, which nearly all weights have."""
    return "" if dtype == "float32" else f":{dtype}"


def scalar(value: float, dtype: str = "float32") -> Constant:
    """A rank-0 constant."""
    return Constant(np.asarray(value, dtype=dtype), "scalar")
