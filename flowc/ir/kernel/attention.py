"""Attention as ONNX has it: one mask for everything that is hidden, or `is_causal` where nothing else is."""

from __future__ import annotations

from dataclasses import dataclass, replace

from flowc.ir.core.attention import Attention, AttentionMask
from flowc.ir.graph import Node, Rewriter, Value
from flowc.ir.kernel.kernel import Kernel
from flowc.ir.types import TensorType, require
from flowc.ir.visibility import CAUSAL, EVERYTHING


@dataclass(frozen=True)
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
        """The mask of the attention's facts stands before it, where `fold_masks` has made none for several."""
        op, mask, key_mask = node.op, node.input("mask"), node.input("key_mask")
        assert isinstance(op, Attention)
        seen = replace(op.visibility, causal=op.visibility.causal and node.need("q").shape[1] != 1)
        if key_mask is not None or seen.left is not None or seen.right is not None:
            facts = AttentionMask(seen)
            over = facts.arrange(new=node.need("q"), mask=key_mask)
            if key_mask is None:
                over = facts.arrange(over, past=node.input("past_key"), keys=node.need("k"))
            mask, seen = rewriter.emit(facts, over, node, "mask")[0], EVERYTHING
        kernel = cls(op.heads, op.kv_heads, op.scale, seen, op.softcap, op.cache)
        return rewriter.remake(node, kernel, node.op.arrange(node.inputs, key_mask=None, mask=mask))
