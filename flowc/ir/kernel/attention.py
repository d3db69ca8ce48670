"""Attention with one mask for everything that is hidden: ONNX's own, and onnxruntime's for encoders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from flowc.ir.core.attention import Attention, AttentionMask
from flowc.ir.dtypes import FLOAT
from flowc.ir.graph import MadeBy, Node, Rewriter, Value
from flowc.ir.kernel.group_query import MaskBias
from flowc.ir.kernel.kernel import Kernel, Limits
from flowc.ir.op import Array, Op
from flowc.ir.traits import Sizes
from flowc.ir.types import TensorType, require
from flowc.ir.visibility import CAUSAL, EVERYTHING, Visibility


class OnnxAttention(Attention, Kernel, name="onnx_attention", level="kernel"):
    """ONNX Attention (opset 24). What hides keys is `mask`, or it is causal, or it hides nothing."""

    def infer(
        self,
        q: TensorType,
        k: TensorType,
        v: TensorType,
        past_key: TensorType | None = None,
        past_value: TensorType | None = None,
        key_mask: TensorType | None = None,
        bias: TensorType | None = None,
        mask: TensorType | None = None,
    ) -> tuple[TensorType, ...]:
        require(key_mask is None and self.visibility in (CAUSAL, EVERYTHING), "what hides keys must be one mask")
        return super().infer(q, k, v, past_key, past_value, None, bias, mask)

    @classmethod
    def take(cls, node: Node, rewriter: Rewriter) -> tuple[Value, ...]:
        op = node.op
        assert isinstance(op, Attention)
        mask, seen = one_mask(node, op, rewriter)
        kernel = cls(op.heads, op.kv_heads, op.scale, seen, op.softcap, op.cache)
        return rewriter.remake(node, kernel, node.op.arrange(node.inputs, key_mask=None, mask=mask))


def one_mask(node: Node, op: Attention, rewriter: Rewriter) -> tuple[Value | None, Visibility]:
    """What hides keys as one mask, or as being causal alone; `fold_masks` has made a mask that several layers share."""
    mask, key_mask = node.input("mask"), node.input("key_mask")
    seen = replace(op.visibility, causal=op.visibility.causal and node.need("q").shape[1] != 1)
    if key_mask is None and seen.left is None and seen.right is None:
        return mask, seen
    facts = AttentionMask(seen)
    over = facts.arrange(new=node.need("q"), mask=key_mask)
    if key_mask is None:
        over = facts.arrange(over, past=node.input("past_key"), keys=node.need("k"))
    return rewriter.emit(facts, over, node, "mask")[0], EVERYTHING


@dataclass(frozen=True)
class MultiHeadAttention(
    Op,
    Kernel,
    name="multi_head_attention",
    operands=("q", "k", "v", "bias"),
    dtypes={"q k v bias": FLOAT},
    level="kernel",
):
    """com.microsoft MultiHeadAttention of tokens that see each other, with a bias that hides keys.

    q, k, v [batch, sequence, heads * head_dim]; bias [1 or batch, 1 or heads, queries, keys] is added to the scores.
    A query whose keys are all hidden gives numbers that mean nothing.
    """

    heads: int
    scale: float

    category = "attention"

    def neutral(self) -> Mapping[str, float]:
        return {"bias": 0.0}

    def infer(
        self, q: TensorType, k: TensorType, v: TensorType, bias: TensorType | None = None
    ) -> tuple[TensorType, ...]:
        return self._meaning.infer(q, k, v, bias=bias)

    def reference(self, q: Array, k: Array, v: Array, bias: Array | None = None) -> tuple[Array, ...]:
        return self._meaning.reference(q, k, v, bias=bias)

    @property
    def _meaning(self) -> Attention:
        return Attention(self.heads, self.heads, self.scale)

    def rounding(self, operands: Sequence[Array | None], results: Sequence[Array]) -> tuple[Array, ...]:
        return self._meaning.rounding(operands, results)

    def scratch(self, inputs: Sizes, outputs: Sequence[tuple[int, ...]]) -> int:
        return self._meaning.scratch(inputs[:3], outputs)

    def macs(self, inputs: Sizes, outputs: Sequence[tuple[int, ...]]) -> int:
        return self._meaning.macs(inputs[:3], outputs)

    @classmethod
    def why_not(cls, node: Node, limits: Limits, made_by: MadeBy) -> str:
        op = node.op
        assert isinstance(op, Attention)
        if op.cache or node.input("past_key") is not None:
            return "it keeps no cache"
        if op.softcap is not None:
            return "it has no cap of scores"
        return "" if op.heads == op.kv_heads else "its heads share no keys"

    @classmethod
    def take(cls, node: Node, rewriter: Rewriter) -> tuple[Value, ...]:
        op, bias = node.op, node.input("bias")
        assert isinstance(op, Attention)
        mask, seen = one_mask(node, op, rewriter)
        if seen.causal:
            facts = AttentionMask(seen)
            mask = rewriter.once(facts, facts.arrange(new=node.need("q"), keys=node.need("k")), node, "mask")[0]
        if mask is not None:
            bias = rewriter.once(MaskBias(node.need("q").dtype), (mask, bias), node, "bias")[0]
        return rewriter.remake(node, cls(op.heads, op.scale), (node.need("q"), node.need("k"), node.need("v"), bias))
