"""Attention to given keys and values as runtimes have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flowc.ir.core.attention import AttentionMask, attend
from flowc.ir.core.cross_attention import CrossAttention
from flowc.ir.dtypes import BOOL, FLOAT, INTEGER
from flowc.ir.graph import Node, Rewriter, Value
from flowc.ir.kernel.kernel import Kernel
from flowc.ir.op import Array
from flowc.ir.types import TensorType, require
from flowc.ir.visibility import EVERYTHING


@dataclass(frozen=True)
class OnnxCrossAttention(
    CrossAttention,
    Kernel,
    name="onnx_cross_attention",
    operands=("q", "key", "value", "key_mask", "mask"),
    dtypes={"q key value": FLOAT, "key_mask": INTEGER, "mask": BOOL},
    level="kernel",
):
    """ONNX Attention (opset 24) of four axes, without new keys. mask bool [batch, 1, queries, keys]."""

    tokenwise = ()

    def neutral(self) -> Mapping[str, float]:
        return {"mask": 1.0}

    def infer(
        self,
        q: TensorType,
        key: TensorType,
        value: TensorType,
        key_mask: TensorType | None = None,
        mask: TensorType | None = None,
    ) -> tuple[TensorType, ...]:
        require(key_mask is None, "what hides keys must be one mask")
        return super().infer(q, key, value)

    def reference(
        self, q: Array, key: Array, value: Array, key_mask: Array | None = None, mask: Array | None = None
    ) -> tuple[Array, ...]:
        if mask is None:
            return super().reference(q, key, value, key_mask)
        return (attend(q, key, value, self.heads, self.kv_heads, self.scale, mask),)

    @classmethod
    def take(cls, node: Node, rewriter: Rewriter) -> tuple[Value, ...]:
        op, mask = node.op, node.input("key_mask")
        assert isinstance(op, CrossAttention)
        if mask is not None:  # one for all layers that ask for as many queries
            facts, over = AttentionMask(EVERYTHING), rewriter.graph.over_tokens_of(node.need("q"))
            mask = rewriter.once(facts, facts.arrange(new=over, mask=mask), node, "mask")[0]
        kernel = cls(op.heads, op.kv_heads, op.scale)
        return rewriter.remake(node, kernel, kernel.arrange(node.inputs[:3], mask=mask))
