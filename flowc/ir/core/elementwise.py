"""Functions applied to each element."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from flowc.ir.dtypes import FLOAT, NUMBER
from flowc.ir.op import Array, Op
from flowc.ir.traits import Types
from flowc.ir.types import TensorType, broadcast, require
from flowc.ir.weights.expressions import Affine, Product, Sum, Weight

Function = Literal[
    "silu", "gelu", "gelu_tanh", "gelu_10", "quick_gelu", "relu", "relu2", "leaky_relu", "mish", "tanh", "sigmoid",
    "linear", "softplus", "exp", "neg",
]  # fmt: skip

LEAK = 0.01
"""What leaky_relu makes of a negative number, as a factor."""


def _erf(x: Array) -> Array:
    """Error function to float64 accuracy (W. J. Cody 1969 through the standard library)."""
    from math import erf

    return np.vectorize(erf, otypes=[np.float64])(x.astype(np.float64))


def apply(function: Function, x: Array) -> Array:
    """The meaning of each function, in the dtype of x."""
    one = x.dtype.type(1)
    with np.errstate(over="ignore"):
        match function:
            case "silu":
                return x / (one + np.exp(-x))
            case "gelu":
                return (0.5 * x.astype(np.float64) * (1 + _erf(x / np.sqrt(2.0)))).astype(x.dtype)
            case "gelu_tanh":
                inner = x.dtype.type(np.sqrt(2 / np.pi)) * (x + x.dtype.type(0.044715) * x * x * x)
                return x.dtype.type(0.5) * x * (one + np.tanh(inner))
            case "gelu_10":
                return np.clip(apply("gelu", x), x.dtype.type(-10), x.dtype.type(10))
            case "quick_gelu":
                return x / (one + np.exp(x.dtype.type(-1.702) * x))
            case "relu":
                return np.maximum(x, 0)
            case "relu2":
                return np.square(np.maximum(x, 0))
            case "leaky_relu":
                return np.where(x < 0, x * x.dtype.type(LEAK), x)
            case "mish":
                return x * np.tanh(np.logaddexp(x, x.dtype.type(0)))
            case "tanh":
                return np.tanh(x)
            case "sigmoid":
                return one / (one + np.exp(-x))
            case "linear":
                return x
            case "softplus":
                return np.logaddexp(x, x.dtype.type(0))
            case "exp":
                return np.exp(x)
            case "neg":
                return -x


@dataclass(frozen=True)
class Unary(Op, name="unary", operands=("x",), dtypes={"x": FLOAT}):
    """`function(x)`; gelu is the erf form, gelu_tanh HuggingFace's `gelu_pytorch_tanh`.

    gelu_10 is gelu kept within -10 and 10, relu2 the square of relu; linear changes nothing.
    """

    function: Function

    tokenwise = ("x",)

    @property
    def wide(self) -> bool:
        return self.function in ("exp", "softplus")  # the decay of a recurrent layer is made of these

    def caption(self) -> str:
        return self.function

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        return (x,)

    def reference(self, x: Array) -> tuple[Array, ...]:
        return (apply(self.function, x),)

    def rounds_at(self) -> str | float | None:
        match self.function:
            case "silu" | "gelu" | "gelu_tanh" | "gelu_10" | "quick_gelu" | "mish":
                return "x"
            case "tanh" | "sigmoid" | "softplus":
                return 1.0
            case "relu" | "relu2" | "leaky_relu" | "linear" | "exp" | "neg":
                return None


@dataclass(frozen=True)
class Binary(Op, name="binary", operands=("a", "b"), dtypes={"a b": NUMBER}):
    """Elementwise add, sub, mul or div with numpy broadcasting."""

    function: Literal["add", "sub", "mul", "div"]

    tokenwise = ("a", "b")
    exact = True
    broadcasts = True

    def caption(self) -> str:
        return self.function

    def of_constants(self, operands: Sequence[Weight | None]) -> Weight | None:
        a, b = operands
        if a is None or b is None:
            return None
        return Sum(a, b) if self.function == "add" else Product(a, b) if self.function == "mul" else None

    def infer(self, a: TensorType, b: TensorType) -> tuple[TensorType, ...]:
        require(a.dtype == b.dtype, f"element types differ: {a} and {b}")
        return (TensorType(a.dtype, broadcast(a.shape, b.shape)),)

    def reference(self, a: Array, b: Array) -> tuple[Array, ...]:
        functions = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide}
        return (functions[self.function](a, b),)


@dataclass(frozen=True)
class Scale(Op, name="scale", operands=("x",), dtypes={"x": FLOAT}):
    """`x * factor`, the factor rounded to the element type of x."""

    factor: float

    tokenwise = ("x",)
    exact = True

    def is_identity(self, types: Types) -> bool:
        return self.factor == 1.0

    def of_constants(self, operands: Sequence[Weight | None]) -> Weight | None:
        return Affine(operands[0], self.factor) if operands[0] is not None else None

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        return (x,)

    def reference(self, x: Array) -> tuple[Array, ...]:
        return (x * x.dtype.type(self.factor),)


@dataclass(frozen=True)
class Softcap(Op, name="softcap", operands=("x",), dtypes={"x": FLOAT}):
    """`cap * tanh(x / cap)` (Gemma 2's final logits)."""

    cap: float

    tokenwise = ("x",)

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        return (x,)

    def reference(self, x: Array) -> tuple[Array, ...]:
        cap = x.dtype.type(self.cap)
        return (np.tanh(x / cap) * cap,)

    def rounds_at(self) -> float:
        return self.cap  # of tanh, before it is scaled
