"""A residual sum and the norm behind it in one kernel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flowc.ir.core.elementwise import Binary
from flowc.ir.core.norm import Norm
from flowc.ir.dtypes import FLOAT, widened
from flowc.ir.graph import MadeBy, Node, Rewriter, Value
from flowc.ir.kernel.kernel import Kernel, Limits
from flowc.ir.kernel.norms import whole_gain
from flowc.ir.op import Array, Op
from flowc.ir.types import TensorType, known, require


@dataclass(frozen=True)
class SkipRmsNormalization(
    Op,
    Kernel,
    name="skip_rms_normalization",
    operands=("x", "skip", "gain"),
    dtypes={"x skip gain": FLOAT},
    level="kernel",
):
    """com.microsoft SkipSimplifiedLayerNormalization: s = x + skip, and s / sqrt(mean(s^2) + eps) * gain.

    x and skip [..., width], gain [width]. Results: the normalised sum, and the sum. Half-precision numbers are added
    and normalised in float32; the sum is rounded once.
    """

    eps: float

    category = "norm"
    tokenwise = ("x", "skip")

    def infer(self, x: TensorType, skip: TensorType, gain: TensorType) -> tuple[TensorType, ...]:
        width = known(x.shape[-1], "the normalised axis")
        require(x == skip, f"x {x} and skip {skip} differ")
        require(gain.shape == (width,), f"gain {gain} does not fit {x}")
        return (x, x)

    def reference(self, x: Array, skip: Array, gain: Array) -> tuple[Array, ...]:
        total = widened(x) + widened(skip)
        size = np.sqrt((total * total).mean(axis=-1, keepdims=True) + total.dtype.type(self.eps))
        return ((total / size * widened(gain)).astype(x.dtype), total.astype(x.dtype))

    @classmethod
    def why_not(cls, node: Node, limits: Limits, made_by: MadeBy) -> str:
        op, x = node.op, node.need("x")
        assert isinstance(op, Norm)
        total = made_by(x)
        if op.kind != "rms" or op.groups != 1 or node.input("bias") is not None:
            return "it norms whole rows by their root mean square"
        if total is None or total.op != Binary("add") or any(v is None or v.type != x.type for v in total.inputs):
            return "no sum of two values of one shape stands before it"
        return ""

    @classmethod
    def take(cls, node: Node, rewriter: Rewriter) -> tuple[Value, ...]:
        """Readers of the sum that come later take it from here; before that, the sum stands as it was."""
        op, x = node.op, node.need("x")
        total = rewriter.maker(x)
        assert isinstance(op, Norm) and total is not None
        operands = (total.need("a"), total.need("b"), whole_gain(node, op, rewriter))
        normed, summed = rewriter.widen(node, cls(op.eps), operands, "sum")
        rewriter.replace(x, summed)
        return (normed,)
