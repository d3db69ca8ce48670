"""Normalisation over the last axis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from flowc.ir.dtypes import FLOAT, widened
from flowc.ir.op import Array, Op
from flowc.ir.types import TensorType, known, require


@dataclass(frozen=True)
class Norm(Op, name="norm", operands=("x", "gain", "bias"), dtypes={"x gain bias": FLOAT}, level="core"):
    """RMSNorm (Zhang & Sennrich 2019) or LayerNorm (Ba et al. 2016) over the last axis.

    x [..., groups * width]: each group is normalised on its own (`groups` heads for q/k norms). gain and bias are
    [width]; the factor is `gain + offset` (offset 1 for Gemma's convention). Both may be absent. Half-precision numbers
    are normalised in float32, as HuggingFace does.
    """

    kind: Literal["rms", "layer"]
    eps: float
    offset: float = 0.0
    groups: int = 1

    category = "norm"
    tokenwise = ("x",)

    def caption(self) -> str:
        return ""

    def neutral(self) -> Mapping[str, float]:
        return {"gain": 1.0 - self.offset, "bias": 0.0}

    def infer(
        self, x: TensorType, gain: TensorType | None = None, bias: TensorType | None = None
    ) -> tuple[TensorType, ...]:
        width = known(x.shape[-1], "the normalised axis")
        require(width % self.groups == 0, f"{width} channels do not split into {self.groups} groups")
        for what, t in (("gain", gain), ("bias", bias)):
            require(
                t is None or t.shape == (width // self.groups,), f"{what} {t} does not fit {x} in {self.groups} groups"
            )
        require(gain is not None or bias is None, "a bias needs a gain")
        return (x,)

    def reference(self, x: Array, gain: Array | None = None, bias: Array | None = None) -> tuple[Array, ...]:
        parts = widened(x).reshape(*x.shape[:-1], self.groups, -1)
        if self.kind == "layer":
            parts = parts - parts.mean(axis=-1, keepdims=True)
        y = parts / np.sqrt((parts * parts).mean(axis=-1, keepdims=True) + parts.dtype.type(self.eps))
        if gain is not None:
            y = y * (widened(gain) + parts.dtype.type(self.offset))
        if bias is not None:
            y = y + widened(bias)
        return (y.reshape(x.shape).astype(x.dtype),)
