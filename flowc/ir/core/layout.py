"""Operators that only move data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from flowc.ir.dtypes import ANY
from flowc.ir.op import Array, Op
from flowc.ir.traits import Types
from flowc.ir.types import Dim, TensorType, add_dims, known, require
from flowc.ir.weights import expressions as weights
from flowc.ir.weights.expressions import Weight


@dataclass(frozen=True)
class Split(Op, name="split", operands=("x",), dtypes={"x": ANY}):
    """Consecutive parts of the last axis with the given sizes."""

    sizes: tuple[int, ...]

    exact = True

    def is_identity(self, types: Types) -> bool:
        return len(self.sizes) == 1

    def works_by_token(self, types: Types, results: Sequence[TensorType]) -> bool:
        return results[0].rank > 2

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        width = known(x.shape[-1], "the split axis")
        require(width == sum(self.sizes), f"{width} channels do not split into {list(self.sizes)}")
        return tuple(x.with_last(size) for size in self.sizes)

    def reference(self, x: Array) -> tuple[Array, ...]:
        parts = np.split(x, np.cumsum(self.sizes)[:-1], axis=-1)
        return tuple(np.ascontiguousarray(p) for p in parts)


@dataclass(frozen=True)
class Concat(Op, name="concat", operands=(), dtypes={}):
    """Operands joined along `axis` (any number of them; counted from the front, or from the back when negative)."""

    axis: int

    exact = True

    def is_identity(self, types: Types) -> bool:
        return len(types) == 1

    def works_by_token(self, types: Types, results: Sequence[TensorType]) -> bool:
        return self.axis % results[0].rank >= 2

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        first = types[0]
        axis = self.axis % first.rank
        size: Dim = 0
        for t in types:
            same = t.rank == first.rank and all(
                a == b or i == axis for i, (a, b) in enumerate(zip(t.shape, first.shape, strict=True))
            )
            require(same and t.dtype == first.dtype, f"cannot join {t} to {first} along axis {axis}")
            size = add_dims(size, t.shape[axis])
        return (first.with_shape(*first.shape[:axis], size, *first.shape[axis + 1 :]),)

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        return (np.concatenate(arrays, axis=self.axis),)


@dataclass(frozen=True)
class Slice(Op, name="slice", operands=("x",), dtypes={"x": ANY}):
    """Elements `start:stop` of one axis; negative numbers count from the end, `stop` None goes to the end."""

    axis: int
    start: int
    stop: int | None = None

    exact = True

    def is_identity(self, types: Types) -> bool:
        x = types[0]
        if x is None or self.start != 0:
            return False
        size = x.shape[self.axis % x.rank]
        return self.stop is None or (isinstance(size, int) and self.stop >= size)

    def works_by_token(self, types: Types, results: Sequence[TensorType]) -> bool:
        return self.axis % results[0].rank >= 2

    def of_constants(self, operands: Sequence[Weight | None]) -> Weight | None:
        x = operands[0]
        if x is None or self.axis % len(x.shape) != 0:
            return None
        places = range(x.shape[0])[self.start : self.stop]
        return weights.Rows(x, places.start, places.stop) if len(places) else None

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        axis = self.axis % x.rank
        size = x.shape[axis]
        if isinstance(size, int):
            taken: Dim = len(range(size)[self.start : self.stop])
        elif self.stop is not None and (self.start < 0) == (self.stop < 0):
            taken = self.stop - self.start
        elif self.stop is None and self.start < 0:
            taken = -self.start
        else:
            require(self.stop is None, f"the size of {self.start}:{self.stop} of '{size}' is not known")
            taken = add_dims(size, -self.start)
        return (x.with_shape(*x.shape[:axis], taken, *x.shape[axis + 1 :]),)

    def reference(self, x: Array) -> tuple[Array, ...]:
        index = [slice(None)] * x.ndim
        index[self.axis] = slice(self.start, self.stop)
        return (x[tuple(index)],)


@dataclass(frozen=True)
class Reshape(Op, name="reshape", operands=("x",), dtypes={"x": ANY}):
    """The same elements under another shape.

    Entries of `shape` are sizes, or symbols standing for the dimension of that name, which must be one of x's.
    At most one symbol may be recomputed by the target (-1); symbols other than those must keep their axis.
    """

    shape: tuple[Dim, ...]

    exact = True

    def is_identity(self, types: Types) -> bool:
        return types[0] is not None and self.shape == types[0].shape

    def works_by_token(self, types: Types, results: Sequence[TensorType]) -> bool:
        return types[0] is not None and types[0].shape[:2] == self.shape[:2]

    def on_one_token(self) -> Reshape:
        return replace(self, shape=(self.shape[0], 1, *self.shape[2:]))

    def of_constants(self, operands: Sequence[Weight | None]) -> Weight | None:
        x, sizes = operands[0], tuple(d for d in self.shape if isinstance(d, int))
        return weights.Reshape(x, sizes) if x is not None and len(sizes) == len(self.shape) else None

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        old, new = list(x.shape), list(self.shape)
        for symbol in [d for d in new if isinstance(d, str)]:
            require(symbol in old, f"'{symbol}' is not a dimension of {x}")
        fixed_old = int(np.prod([d for d in old if isinstance(d, int)]))
        fixed_new = int(np.prod([d for d in new if isinstance(d, int)]))
        require(fixed_old == fixed_new, f"{x} does not have the elements of [{', '.join(map(str, new))}]")
        require(
            sorted(d for d in old if isinstance(d, str)) == sorted(d for d in new if isinstance(d, str)),
            f"{x} and [{', '.join(map(str, new))}] do not have the same symbols",
        )
        return (x.with_shape(*self.shape),)

    def reference(self, x: Array) -> tuple[Array, ...]:
        symbols = [d for d in self.shape if isinstance(d, str)]
        if len(symbols) <= 1:
            return (x.reshape([d if isinstance(d, int) else -1 for d in self.shape]),)
        sizes = [d if isinstance(d, int) else x.shape[i] for i, d in enumerate(self.shape)]
        return (x.reshape(sizes),)


@dataclass(frozen=True)
class Transpose(Op, name="transpose", operands=("x",), dtypes={"x": ANY}):
    """Axes in another order."""

    axes: tuple[int, ...]

    exact = True

    def is_identity(self, types: Types) -> bool:
        return self.axes == tuple(range(len(self.axes)))

    def of_constants(self, operands: Sequence[Weight | None]) -> Weight | None:
        return weights.Transpose(operands[0], self.axes) if operands[0] is not None else None

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        require(sorted(self.axes) == list(range(x.rank)), f"axes {self.axes} do not fit {x}")
        return (x.with_shape(*(x.shape[a] for a in self.axes)),)

    def reference(self, x: Array) -> tuple[Array, ...]:
        return (np.ascontiguousarray(x.transpose(self.axes)),)
