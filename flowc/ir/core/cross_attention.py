"""Attention to keys and values that are already there: what an encoder made of its tokens, once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from flowc.ir.core.attention import attend
from flowc.ir.dtypes import FLOAT, INTEGER
from flowc.ir.op import Array, Op
from flowc.ir.traits import Sizes
from flowc.ir.types import TensorType, known, require


@dataclass(frozen=True)
class CrossAttention(
    Op,
    name="cross_attention",
    operands=("q", "key", "value", "key_mask"),
    dtypes={"q key value": FLOAT, "key_mask": INTEGER},
    level="core",
):
    """softmax(q k^T * scale, over the keys that the mask keeps) v, per head (Vaswani et al. 2017, 3.2.3).

    q [batch, queries, heads * head_dim]; key, value [batch, kv_heads, keys, head_dim], as a cache holds them; heads
    share keys in groups. key_mask int64 [batch, keys]: 0 where a key is padding. Result: [batch, queries, heads *
    v_head_dim]. Every query sees every key that is no padding; where there is none it gives zeros. Scores of
    half-precision operands are float32.
    """

    heads: int
    kv_heads: int
    scale: float

    category = "attention"
    tokenwise = ("q",)

    def neutral(self) -> Mapping[str, float]:
        return {"key_mask": 1.0}

    def infer(
        self, q: TensorType, key: TensorType, value: TensorType, key_mask: TensorType | None = None
    ) -> tuple[TensorType, ...]:
        require(self.heads % self.kv_heads == 0, f"{self.heads} heads cannot share {self.kv_heads} key heads")
        width = known(q.shape[-1], "q's width")
        require(width % self.heads == 0, f"q has {width} channels, not a multiple of {self.heads} heads")
        for what, of in (("key", key), ("value", value)):
            require(of.rank == 4 and of.shape[1] == self.kv_heads,
                    f"the {what} must be [batch, {self.kv_heads}, keys, channels], not {of}")  # fmt: skip
        require(key.shape[-1] == width // self.heads, f"heads of q are {width // self.heads} wide, of key {key}")
        require(key.shape[2] == value.shape[2], f"there are other keys than values: {key}, {value}")
        require(key_mask is None or key_mask.shape == (key.shape[0], key.shape[2]),
                f"the mask must be over the keys {key}, not {key_mask}")  # fmt: skip
        return (q.with_last(self.heads * known(value.shape[-1], "a value's width")),)

    def reference(self, q: Array, key: Array, value: Array, key_mask: Array | None = None) -> tuple[Array, ...]:
        mask = np.ones((1, 1, 1, 1), bool) if key_mask is None else (key_mask != 0)[:, None, None]
        return (attend(q, key, value, self.heads, self.kv_heads, self.scale, mask),)

    def scratch(self, inputs: Sizes, outputs: Sequence[tuple[int, ...]]) -> int:
        """Scores: [batch, heads, queries, keys]."""
        q, key = inputs[:2]
        return 0 if q is None or key is None else prod(q[:2]) * self.heads * key[2]

    def macs(self, inputs: Sizes, outputs: Sequence[tuple[int, ...]]) -> int:
        q, key = inputs[:2]
        return 0 if q is None or key is None else (prod(q) + prod(outputs[0])) * key[2]
