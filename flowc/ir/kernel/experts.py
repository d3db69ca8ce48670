"""Mixtures of experts: one operator, or a loop over the experts that were chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flowc.ir.core.experts import Experts
from flowc.ir.graph import MadeBy, Node
from flowc.ir.kernel.kernel import Kernel, Limits
from flowc.ir.op import Array
from flowc.ir.types import TensorType


class MoE(Experts, Kernel, name="moe", level="kernel"):
    """com.microsoft MoE; `activations` are those that the target has it for."""

    @classmethod
    def why_not(cls, node: Node, limits: Limits, made_by: MadeBy) -> str:
        assert isinstance(node.op, Experts)
        known: Sequence[str] = limits["activations"]
        return "" if node.op.activation in known else f"it has no activation '{node.op.activation}'"


@dataclass(frozen=True)
class ExpertLoop(Experts, Kernel, name="expert_loop", level="kernel"):
    """A loop over the experts that some token chose, each a MatMul over its tokens.

    With `transposed` the weights are gate_up [experts, hidden, 2 * ffn] and down [experts, ffn, hidden], as MatMul
    takes them; without, the graph turns them at each run.
    """

    transposed: bool = False

    def infer(self, x: TensorType, scores: TensorType, gate_up: TensorType, down: TensorType) -> tuple[TensorType, ...]:
        return super().infer(x, scores, self._stored(gate_up), self._stored(down))

    def reference(self, x: Array, scores: Array, gate_up: Array, down: Array) -> tuple[Array, ...]:
        if self.transposed:
            gate_up, down = gate_up.swapaxes(1, 2), down.swapaxes(1, 2)
        return super().reference(x, scores, gate_up, down)

    def _stored(self, type_: TensorType) -> TensorType:
        if not self.transposed or type_.rank != 3:
            return type_
        experts, a, b = type_.shape
        return type_.with_shape(experts, b, a)
