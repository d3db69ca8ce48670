"""Products with a weight that is stored [out, in]."""

from __future__ import annotations

from flowc.ir.core.linear import Linear
from flowc.ir.kernel.kernel import Kernel


class FusedMatMul(Linear, Kernel, name="fused_mat_mul", level="kernel"):
    """com.microsoft FusedMatMul with transB, and an Add for the bias."""


class Gemm(Linear, Kernel, name="gemm", level="kernel"):
    """ONNX Gemm with transB over rows; x of more than two axes is reshaped to rows and back."""
