"""The gated delta rule and the causal convolution, as runtimes have them."""

from __future__ import annotations

from flowc.ir.core.recurrent import CausalConv, DeltaScan
from flowc.ir.graph import MadeBy, Node
from flowc.ir.kernel.kernel import Kernel, Limits


class LinearAttention(DeltaScan, Kernel, name="linear_attention", level="kernel"):
    """com.microsoft LinearAttention with the update rule `gated_delta`."""


class DeltaStep(DeltaScan, Kernel, name="delta_step", level="kernel"):
    """One token in standard operators."""

    @classmethod
    def why_not(cls, node: Node, limits: Limits, made_by: MadeBy) -> str:
        return "" if node.need("v").shape[1] == 1 else "it takes one token"


class DeltaChunks(DeltaScan, Kernel, name="delta_chunks", level="kernel"):
    """Several tokens in standard operators: a Scan over chunks, each a few matrix products."""


def _one_token_over_a_state(node: Node) -> str:
    one = node.need("x").shape[1] == 1 and node.input("state") is not None
    return "" if one else "it takes one token over a state"


class CausalConvWithState(CausalConv, Kernel, name="causal_conv_with_state", level="kernel"):
    """com.microsoft CausalConvWithState for one token."""

    @classmethod
    def why_not(cls, node: Node, limits: Limits, made_by: MadeBy) -> str:
        return _one_token_over_a_state(node)


class ConvStep(CausalConv, Kernel, name="conv_step", level="kernel"):
    """One token: ONNX Conv over the state and the token."""

    @classmethod
    def why_not(cls, node: Node, limits: Limits, made_by: MadeBy) -> str:
        return _one_token_over_a_state(node)


class ConvTokens(CausalConv, Kernel, name="conv_tokens", level="kernel"):
    """Several tokens: ONNX Conv over the state and each row's valid tokens, which stand first."""
