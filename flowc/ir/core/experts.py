"""Mixture of experts: each token goes through the few gated MLPs that a router scores highest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from flowc.ir.core.elementwise import Function, apply
from flowc.ir.dtypes import FLOAT, widened
from flowc.ir.op import Array, Op
from flowc.ir.traits import Sizes
from flowc.ir.types import TensorType, known, require

TIED = 4
"""Roundings between two scores from which on any kernel tells them apart."""


@dataclass(frozen=True)
class Experts(
    Op,
    name="experts",
    operands=("x", "scores", "gate_up", "down"),
    dtypes={"x scores gate_up down": FLOAT},
    level="core",
):
    """Sum over the chosen experts e of weight_e * down_e(activation(gate_e x) * up_e x) (Shazeer et al. 2017).

    The weights are softmax(scores) over all experts; the `top` largest are kept (of equal ones the first), and with
    `renormalise` divided by their sum (HF `Qwen3MoeSparseMoeBlock`).

    x [batch, sequence, hidden]; scores [batch, sequence, experts], the router's logits. gate_up
    [experts, 2 * ffn, hidden], whose rows alternate between gate and up, and down [experts, hidden, ffn]. Weights and
    sums over experts are float32 for half-precision operands.
    """

    top: int
    renormalise: bool
    activation: Function = "silu"

    category = "matrix"
    tokenwise = ("x", "scores")

    def infer(self, x: TensorType, scores: TensorType, gate_up: TensorType, down: TensorType) -> tuple[TensorType, ...]:
        require(gate_up.rank == 3 and down.rank == 3, f"weights {gate_up} and {down} must be one matrix an expert")
        count, hidden = known(scores.shape[-1], "the experts' axis"), known(x.shape[-1], "the hidden axis")
        require(scores.shape[:-1] == x.shape[:-1], f"the scores {scores} are not those of {x}")
        require(0 < self.top <= count, f"{self.top} of {count} experts cannot be chosen")
        ffn = known(down.shape[2], "an expert's width")
        for what, t, shape in (("gate_up", gate_up, (count, 2 * ffn, hidden)), ("down", down, (count, hidden, ffn))):
            require(t.shape == shape, f"{what} {t} must be {list(shape)}")
        return (x,)

    def reference(self, x: Array, scores: Array, gate_up: Array, down: Array) -> tuple[Array, ...]:
        dtype = x.dtype
        x, scores, gate_up, down = (widened(a) for a in (x, scores, gate_up, down))
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        chosen = np.argsort(-weights, axis=-1, kind="stable")[..., : self.top]
        kept = np.take_along_axis(weights, chosen, axis=-1)
        if self.renormalise:
            kept = kept / kept.sum(axis=-1, keepdims=True)
        y = np.zeros_like(x)
        for expert in range(scores.shape[-1]):
            weight = np.where(chosen == expert, kept, 0).sum(axis=-1).astype(x.dtype)
            tokens = (chosen == expert).any(axis=-1)
            both = x[tokens] @ gate_up[expert].T
            h = apply(self.activation, both[:, 0::2]) * both[:, 1::2]
            y[tokens] += weight[tokens][:, None] * (h @ down[expert].T)
        return (y.astype(dtype, copy=False),)

    def router(self) -> tuple[str, int]:
        return "scores", self.top

    def undecided(self, operands: Sequence[Array | None]) -> Array | None:
        scores = operands[1]
        assert scores is not None
        if scores.shape[-1] <= self.top:
            return None
        ranked = np.sort(scores, axis=-1)[..., ::-1]
        size = np.maximum(np.abs(scores).max(axis=-1), 1)
        return ranked[..., self.top - 1] - ranked[..., self.top] <= TIED * np.finfo(scores.dtype).eps * size

    def macs(self, inputs: Sizes, outputs: Sequence[tuple[int, ...]]) -> int:
        x, _, _, down = inputs
        if x is None or down is None:
            return 0
        return prod(x[:-1]) * self.top * 3 * prod(down[1:])
