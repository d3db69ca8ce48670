"""onnxruntime's CPU provider, with the contrib operators that were measured to pay there."""

from __future__ import annotations

from flowc.ir.core.attention import Attention
from flowc.ir.core.experts import Experts
from flowc.ir.core.linear import Linear
from flowc.ir.core.recurrent import CausalConv, DeltaScan
from flowc.ir.kernel.experts import MoE
from flowc.ir.kernel.group_query import GroupQueryAttention
from flowc.ir.kernel.matrix import FusedMatMul
from flowc.ir.kernel.recurrent import CausalConvWithState, LinearAttention
from flowc.ir.phases import DECODE, UNIFIED
from flowc.targets.standard import STANDARD
from flowc.targets.target import Row, Target

_GROUP_QUERY = {"head_multiple": 8, "rotary_head_multiple": 16, "rotary_dim_multiple": 16}
_HALVES = ("float32", "float16")
"""onnxruntime 1.32 computes float16 by float32 kernels between casts where it has no other; bfloat16 hardly loads."""
_LIMITS = "onnxruntime 1.32 refuses heads that are no multiple of 8 (16 with the rope inside)"

TARGET = Target(
    "ort-cpu", 24, 10, "1.32.0", True,
    "onnxruntime's CPU provider, with its contrib operators where they are measured to pay",
    kernels=(
        Row(Attention, GroupQueryAttention,
            f"decode in 0.83 to 1.0 of ONNX Attention's time, and it can write in place; {_LIMITS}",
            phases=(DECODE,), assume=("none",), dtypes=_HALVES, limits=_GROUP_QUERY),
        Row(Attention, GroupQueryAttention, f"exact for right padding, several tokens over a past too; {_LIMITS}",
            phases=(DECODE, UNIFIED), assume=("right-padding",), dtypes=_HALVES, limits=_GROUP_QUERY,
            forms=frozenset({"compact", "ragged"})),
        Row(Linear, FusedMatMul, "one wide projection is faster than several narrow ones of one token",
            phases=(DECODE,), forms=frozenset({"packed"})),
        Row(Linear, FusedMatMul, "transB: the weight stays [out, in], as fast as MatMul over [in, out]"),
        Row(Experts, MoE, "all experts at once take 1.7 to 3 times as long; its swiglu is silu",
            limits={"activations": ("silu",)}),
        Row(DeltaScan, LinearAttention, "the operator of opset 27 takes 3.3 to 8.7 times as long",
            dtypes=("float32",)),
        Row(CausalConv, CausalConvWithState, "Concat and Conv take 4.7 times as long for one token",
            phases=(DECODE,)),
        *STANDARD,
    ),
    dtypes=_HALVES,
    stores=("float16", "bfloat16"),
)  # fmt: skip
