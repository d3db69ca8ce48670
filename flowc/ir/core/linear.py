"""Matrix product with a weight stored as HuggingFace stores it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from flowc.ir.dtypes import FLOAT, widened
from flowc.ir.op import Array, Op
from flowc.ir.traits import Sizes
from flowc.ir.types import TensorType, require


@dataclass(frozen=True)
class Linear(Op, name="linear", operands=("x", "weight", "bias"), dtypes={"x weight bias": FLOAT}, level="core"):
    """`x @ weight.T + bias` for x [..., in], weight [out, in], bias [out] (torch nn.Linear).

    Half-precision products are summed in float32.
    """

    category = "matrix"
    tokenwise = ("x",)
    scales_with = ("weight", "bias")

    def caption(self) -> str:
        return ""

    def neutral(self) -> Mapping[str, float]:
        return {"bias": 0.0}

    def infer(self, x: TensorType, weight: TensorType, bias: TensorType | None = None) -> tuple[TensorType, ...]:
        require(weight.rank == 2, f"the weight must be [out, in], not {weight}")
        require(
            x.shape[-1] == weight.shape[1], f"x has {x.shape[-1]} channels, the weight {weight} takes {weight.shape[1]}"
        )
        require(bias is None or bias.shape == weight.shape[:1], f"bias {bias} does not fit weight {weight}")
        return (x.with_last(weight.shape[0]),)

    def reference(self, x: Array, weight: Array, bias: Array | None = None) -> tuple[Array, ...]:
        y = _product(widened(x), widened(weight))
        return ((y if bias is None else y + widened(bias)).astype(x.dtype, copy=False),)

    def spread(
        self, operands: Sequence[Array | None], results: Sequence[Array], each: float, row: float
    ) -> tuple[Array, ...] | None:
        x, weight, *bias = operands
        assert x is not None and weight is not None
        y = results[0].astype(np.float64)
        if bias and bias[0] is not None:
            y -= bias[0]
        squares = _product(np.square(widened(x)), np.square(widened(weight))).astype(np.float64)
        return (each**2 * squares + (row * y) ** 2,)

    def macs(self, inputs: Sizes, outputs: Sequence[tuple[int, ...]]) -> int:
        x = inputs[0]
        return 0 if x is None else prod(x) * outputs[0][-1]


def _product(x: Array, weight: Array) -> Array:
    """`x @ weight.T` for x [..., in], as one product of two matrices: numpy would make one for each row of a batch."""
    product = (weight @ x.reshape(-1, x.shape[-1]).T).T
    return np.ascontiguousarray(product).reshape(*x.shape[:-1], len(weight))
