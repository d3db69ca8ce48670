"""Conversion between element types: never in silence, always an operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flowc.ir.dtypes import ANY, numpy_dtype
from flowc.ir.op import Array, Op
from flowc.ir.traits import Types
from flowc.ir.types import TensorType, require
from flowc.ir.weights.expressions import Cast as CastWeight
from flowc.ir.weights.expressions import Weight


@dataclass(frozen=True)
class Cast(Op, name="cast", operands=("x",), dtypes={"x": ANY}):
    """The same numbers in another element type, rounded to the nearest, ties to even (ONNX Cast)."""

    to: str

    tokenwise = ("x",)

    def is_identity(self, types: Types) -> bool:
        return types[0] is not None and types[0].dtype == self.to

    def of_constants(self, operands: Sequence[Weight | None]) -> Weight | None:
        (of,) = operands
        return CastWeight(of, self.to) if of is not None else None

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        require(self.to in ANY, f"there is no element type '{self.to}'")
        return (TensorType(self.to, x.shape),)

    def reference(self, x: Array) -> tuple[Array, ...]:
        with np.errstate(over="ignore"):
            return (x.astype(numpy_dtype(self.to)),)
