"""Norms as ONNX has them: the gain is always there, and it is the whole factor."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from flowc.ir.core.elementwise import Binary
from flowc.ir.core.norm import Norm
from flowc.ir.dtypes import numpy_dtype
from flowc.ir.graph import MadeBy, Node, Rewriter, Value, constant
from flowc.ir.kernel.kernel import Kernel, Limits
from flowc.ir.types import TensorType, require
from flowc.ir.weights.expressions import Constant


class _WithGain(Norm, Kernel):
    def infer(
        self, x: TensorType, gain: TensorType | None = None, bias: TensorType | None = None
    ) -> tuple[TensorType, ...]:
        require(gain is not None, "the gain is absent")
        return super().infer(x, gain, bias)

    def neutral(self) -> Mapping[str, float]:
        return {"bias": 0.0}

    @classmethod
    def take(cls, node: Node, rewriter: Rewriter) -> tuple[Value, ...]:
        op = node.op
        assert isinstance(op, Norm)
        operands = (node.need("x"), whole_gain(node, op, rewriter), node.input("bias"))
        return rewriter.remake(node, cls(op.kind, op.eps, groups=op.groups), operands)


def whole_gain(node: Node, op: Norm, rewriter: Rewriter) -> Value:
    """The whole factor of a norm [width]: its gain with the offset, ones where it has none."""
    x, gain = node.need("x"), node.input("gain")
    number = numpy_dtype(x.dtype).type
    if gain is None:
        return constant(Constant(np.ones(int(x.shape[-1]) // op.groups, number)))
    if not op.offset:
        return gain
    offset = constant(Constant(np.asarray(op.offset, number)))
    return rewriter.emit(Binary("add"), (gain, offset), node, "gain")[0]


class RmsNormalization(_WithGain, name="rms_normalization", level="kernel"):
    """ONNX RMSNormalization (opset 23) over the last axis, or over groups of it, and an Add for a bias."""

    @classmethod
    def why_not(cls, node: Node, limits: Limits, made_by: MadeBy) -> str:
        return "" if isinstance(node.op, Norm) and node.op.kind == "rms" else "it does not centre its rows"


class LayerNormalization(_WithGain, name="layer_normalization", level="kernel"):
    """ONNX LayerNormalization (opset 17) over the last axis, or over groups of it."""

    @classmethod
    def why_not(cls, node: Node, limits: Limits, made_by: MadeBy) -> str:
        return "" if isinstance(node.op, Norm) and node.op.kind == "layer" else "it centres its rows"
