from __future__ import annotations

from flowc.frontend.builder import Builder
from flowc.frontend.stage import Stage, attr
from flowc.ir.graph import Value
from flowc.stages.blocks.decoder import rms_norm


class RmsNorm(Stage, name="rms_norm"):
    """x / sqrt(mean(x^2) + eps) * weight over the last axis (Zhang & Sennrich 2019)."""

    weights = ("{weight}: [hidden]",)
    reference = "LlamaRMSNorm, Qwen3RMSNorm"
    example = "rms_norm: {weight: model.norm.weight, eps: 1e-5}"
    weight: str = attr(doc="Name of the gain.", main=True)
    eps: float = attr(doc="Added to the mean square.", symbol="norm_eps", ge=0)

    def expand(self, b: Builder, x: Value) -> Value:
        return rms_norm(b, x, self.weight, self.eps, at="weight", name="norm")


class GemmaRmsNorm(RmsNorm, name="gemma_rms_norm"):
    """x / sqrt(mean(x^2) + eps) * (1 + weight) over the last axis: the weight is what the gain differs from 1 by."""

    reference = "Gemma3RMSNorm, Qwen3NextRMSNorm"
    example = "gemma_rms_norm: {weight: model.norm.weight, eps: 1e-6}"

    def expand(self, b: Builder, x: Value) -> Value:
        return rms_norm(b, x, self.weight, self.eps, offset=1.0, at="weight", name="norm")


class ZeroBeta(Stage, name="zero_beta"):
    """Accepted for flows in the seed's style and dropped: no norm of flowc needs a vector of zeros."""

    reads = ()
    writes = ()
    example = "zero_beta: {len: 64}"
    name: str = attr(doc="Name of the vector.", default="zero_beta")
    len: int | None = attr(doc="Its length.", symbol="hidden", gt=0)

    def expand(self, b: Builder, x: Value) -> Value:
        return x
