"""onnxruntime's CUDA provider, with the contrib operators that were measured to pay there."""

from __future__ import annotations

from flowc.ir.core.attention import Attention
from flowc.ir.core.experts import Experts
from flowc.ir.core.linear import Linear
from flowc.ir.core.norm import Norm
from flowc.ir.core.recurrent import CausalConv, DeltaScan
from flowc.ir.kernel.attention import MultiHeadAttention
from flowc.ir.kernel.experts import MoE
from flowc.ir.kernel.group_query import GroupQueryAttention
from flowc.ir.kernel.matrix import FusedMatMul
from flowc.ir.kernel.recurrent import CausalConvWithState, ConvTokens, LinearAttention
from flowc.ir.kernel.skip_norm import SkipRmsNormalization
from flowc.ir.phases import DECODE, ENCODE, PREFILL, UNIFIED
from flowc.targets.standard import STANDARD
from flowc.targets.target import Row, Target

_GROUP_QUERY = {"head_multiple": 8, "rotary_head_multiple": 16, "rotary_dim_multiple": 16}
_HALVES = ("float16", "bfloat16")

TARGET = Target(
    "ort-cuda", 24, 10, "1.31.1", True,
    "onnxruntime's CUDA provider, with its contrib operators where they are measured to pay",
    kernels=(
        Row(Attention, GroupQueryAttention,
            "H100, 1.31.1: decode of a 1B Llama with a bias 1.70 ms captured, ONNX Attention 3.1 and no capture; "
            "it has no float32 kernel",
            phases=(DECODE,), assume=("none",), dtypes=_HALVES, limits=_GROUP_QUERY),
        Row(Attention, GroupQueryAttention,
            "H100, 1.31.1: decode of a 1B Llama 1.56 ms captured, prefill 512 3.06 ms; with a bias 1.70 and 5.0",
            phases=(PREFILL, DECODE, UNIFIED), assume=("right-padding",), dtypes=_HALVES, limits=_GROUP_QUERY,
            forms=frozenset({"compact", "packed"})),
        Row(Attention, MultiHeadAttention,
            "H100, 1.31.1: 16 x 128 tokens in 16 us with an additive bias, ONNX Attention with a mask 21 us",
            phases=(ENCODE,), dtypes=_HALVES),
        Row(Linear, FusedMatMul, "H100, 1.31.1: packed q, k, v take 10 % off decode; gate and up add 15 % to prefill",
            phases=(DECODE,), forms=frozenset({"packed attention"})),
        Row(Linear, FusedMatMul, "H100, 1.31.1: packed q, k, v take 6 % off prefill, read by the attention as they are",
            phases=(PREFILL, UNIFIED), assume=("right-padding",), dtypes=_HALVES,
            forms=frozenset({"packed attention"})),
        Row(Linear, FusedMatMul, "H100, 1.31.1: the weight stays [out, in], as fast as MatMul over [in, out]"),
        Row(Norm, SkipRmsNormalization, "H100, 1.31.1: 6 to 11 % off decode, 9 % off prefill"),
        Row(Experts, MoE, "one operator in place of a loop, whose Unique has no CUDA kernel; its swiglu is silu",
            limits={"activations": ("silu",)}),
        Row(DeltaScan, LinearAttention, "H100, 1.31.1: runs in float32 and in half precision", dtypes=("float32",)),
        Row(CausalConv, CausalConvWithState, "one kernel in place of three", phases=(DECODE,)),
        Row(CausalConv, ConvTokens, "1.31.1 has no Pad in bfloat16", dtypes=("bfloat16",), computes="float32"),
        *STANDARD,
    ),
    dtypes=("float32", "float16", "bfloat16"),
    provider="cuda",
    on_cpu=("float32", "float16"),
)  # fmt: skip
