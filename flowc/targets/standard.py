"""Rows that every target ends with: standard ONNX operators, which compute everything."""

from __future__ import annotations

from flowc.ir.core.attention import Attention
from flowc.ir.core.cross_attention import CrossAttention
from flowc.ir.core.experts import Experts
from flowc.ir.core.linear import Linear
from flowc.ir.core.norm import Norm
from flowc.ir.core.recurrent import CausalConv, DeltaScan
from flowc.ir.kernel.attention import OnnxAttention
from flowc.ir.kernel.cross_attention import OnnxCrossAttention
from flowc.ir.kernel.experts import ExpertLoop
from flowc.ir.kernel.matrix import Gemm
from flowc.ir.kernel.norms import LayerNormalization, RmsNormalization
from flowc.ir.kernel.recurrent import ConvStep, ConvTokens, DeltaChunks, DeltaStep
from flowc.targets.target import Row

HALVES = ("float32", "float16")
"""Float types that standard operators have everywhere; bfloat16 is missing from too many runtimes."""

STANDARD = (
    Row(Linear, Gemm, "ONNX Gemm: the weight stays [out, in], as fast as MatMul over [in, out]"),
    Row(Norm, RmsNormalization, "ONNX RMSNormalization, opset 23"),
    Row(Norm, LayerNormalization, "ONNX LayerNormalization, opset 17"),
    Row(Attention, OnnxAttention, "ONNX Attention, opset 24; at opset 25 onnxruntime 1.32 has no kernel for it"),
    Row(CrossAttention, OnnxCrossAttention, "ONNX Attention of four axes, opset 24"),
    Row(Experts, ExpertLoop, "ONNX Loop: runs the experts that some token chose, and no other"),
    Row(DeltaScan, DeltaStep, "one token needs no Scan", dtypes=("float32",)),
    Row(DeltaScan, DeltaChunks, "ONNX Scan over chunks of 32 tokens: fewest multiplications for heads of 128 channels",
        dtypes=("float32",)),
    Row(CausalConv, ConvStep, "ONNX Conv"),
    Row(CausalConv, ConvTokens, "ONNX Conv"),
)  # fmt: skip
