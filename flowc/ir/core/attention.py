"""Scaled dot-product attention with a cache, and the mask that several layers may share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from flowc.ir.dtypes import ANY, BOOL, FLOAT, INTEGER, widened
from flowc.ir.op import Array, Op
from flowc.ir.traits import Sizes
from flowc.ir.types import Dim, TensorType, add_dims, known, require
from flowc.ir.visibility import CAUSAL, EVERYTHING, Visibility


def capped(softcap: float | None, heads: int, kv_heads: int, v: Array | None, past: Sequence[Array | None]) -> Array:
    """What the rounding of capped scores counts in a result: the cap, by the largest value of its channel.

    v [batch, sequence, kv_heads * dim], past values [batch, kv_heads, past, dim] -> [batch, 1, heads * dim].
    """
    if softcap is None or v is None:
        return np.zeros((1, 1, 1), np.float32)
    largest = np.abs(v).max(axis=1, initial=0).reshape(len(v), kv_heads, -1)
    for cached in past:
        if cached is not None:
            largest = np.maximum(largest, np.abs(cached).max(axis=2, initial=0))
    return softcap * np.repeat(largest, heads // kv_heads, axis=1).reshape(len(v), 1, -1)


def split_heads(x: Array, heads: int) -> Array:
    """[batch, tokens, heads * channels] -> [batch, heads, tokens, channels]."""
    return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)


def attend(
    q: Array,
    keys: Array,
    values: Array,
    heads: int,
    kv_heads: int,
    scale: float,
    mask: Array,
    softcap: float | None = None,
    bias: Array | None = None,
) -> Array:
    """softmax(softcap(q k^T * scale) + bias, where the mask keeps a key) v, in float32 at least.

    q [batch, queries, heads * head_dim]; keys, values [batch, kv_heads, total, head_dim]; mask bool and bias float,
    broadcastable to [batch, heads, queries, total] -> [batch, queries, heads * v_head_dim], zeros where no key is kept.
    """
    all_keys, all_values = (np.repeat(widened(x), heads // kv_heads, axis=1) for x in (keys, values))
    number = all_keys.dtype.type
    scores = split_heads(widened(q), heads) @ all_keys.transpose(0, 1, 3, 2) * number(scale)
    if softcap is not None:
        scores = np.tanh(scores / number(softcap)) * number(softcap)
    if bias is not None:
        scores = scores + widened(bias)
    top = np.where(mask, scores, -np.inf).max(axis=-1, keepdims=True, initial=np.finfo(number).min)
    weights = np.where(mask, np.exp(np.minimum(scores - top, 0)), 0).astype(number)
    sums = weights.sum(axis=-1, keepdims=True)
    weights = np.divide(weights, sums, out=np.zeros_like(weights), where=sums > 0)
    y = (weights @ all_values).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(y).reshape(*q.shape[:2], -1).astype(q.dtype)


@dataclass(frozen=True)
class AttentionMask(
    Op,
    name="attention_mask",
    operands=("new", "mask", "past", "keys"),
    dtypes={"new": ANY, "mask": INTEGER, "past": ANY, "keys": ANY},
):
    """The mask of `Attention` as a value: bool [batch or 1, 1, queries, total], True where a key is seen.

    new [batch, queries, ...] any tensor over the queries; mask int64 [batch, total]. Without a mask the total is what
    past [batch, heads, past, dim] and keys [batch, sequence, ...] (by default `new`) have together.
    """

    visibility: Visibility = CAUSAL

    category = "mask"
    specified_at_padding = True

    def infer(
        self,
        new: TensorType,
        mask: TensorType | None = None,
        past: TensorType | None = None,
        keys: TensorType | None = None,
    ) -> tuple[TensorType, ...]:
        queries = new.shape[1]
        if mask is not None:
            return (TensorType("bool", (mask.shape[0], 1, queries, mask.shape[1])),)
        length = (keys or new).shape[1]
        total = length if past is None else add_dims(past.shape[2], length)
        return (TensorType("bool", (1, 1, queries, total)),)

    def reference(
        self, new: Array, mask: Array | None = None, past: Array | None = None, keys: Array | None = None
    ) -> tuple[Array, ...]:
        queries = new.shape[1]
        length = (new if keys is None else keys).shape[1]
        total = mask.shape[1] if mask is not None else length + (0 if past is None else past.shape[2])
        return (self.visibility.allowed(queries, total, mask)[:, None],)


@dataclass(frozen=True)
class Attention(
    Op,
    name="attention",
    operands=("q", "k", "v", "past_key", "past_value", "key_mask", "bias", "mask"),
    dtypes={"q k v past_key past_value bias": FLOAT, "key_mask": INTEGER, "mask": BOOL},
    level="core",
):
    """softmax(softcap(q k^T * scale) + bias, over the keys that the mask keeps) v, per head (Vaswani et al. 2017).

    q [batch, queries, heads * head_dim]; k, v [batch, sequence, kv_heads * head_dim], keys already rotated; heads
    share keys in groups (GQA, Ainslie et al. 2023). past_key, past_value [batch, kv_heads, past, head_dim] stand before
    the new keys. key_mask int64 [batch, total]: 0 where a key is padding. bias float [1 or batch, heads or 1, queries,
    total] is added to the scores. mask bool [batch or 1, 1, queries, total] replaces key_mask and
    visibility. Results: [batch, queries, heads * v_head_dim] and, with `cache`, present key and value
    [batch, kv_heads, total, head_dim]. A query that sees no key gives zeros. Scores of half-precision operands are
    float32.
    """

    heads: int
    kv_heads: int
    scale: float
    visibility: Visibility = EVERYTHING
    softcap: float | None = None
    cache: bool = False

    category = "attention"

    def neutral(self) -> Mapping[str, float]:
        return {"key_mask": 1.0, "bias": 0.0}

    def windows(self) -> tuple[int, ...]:
        return () if self.visibility.span is None else (self.visibility.span,)

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
        require(self.heads % self.kv_heads == 0, f"{self.heads} heads cannot share {self.kv_heads} key heads")
        q_width, k_width, v_width = (known(t.shape[-1], "a head's width") for t in (q, k, v))
        require(q_width % self.heads == 0, f"q has {q_width} channels, not a multiple of {self.heads} heads")
        for what, width in (("k", k_width), ("v", v_width)):
            require(width % self.kv_heads == 0, f"{what} has {width} channels, not a multiple of {self.kv_heads} heads")
        head_dim, v_dim = q_width // self.heads, v_width // self.kv_heads
        require(
            k_width // self.kv_heads == head_dim, f"heads of q are {head_dim} wide, of k {k_width // self.kv_heads}"
        )
        require(mask is None or self.visibility.unlimited, "a mask replaces what a query sees")
        y = q.with_last(self.heads * v_dim)
        if not self.cache:
            return (y,)
        total: Dim = k.shape[1] if past_key is None else add_dims(past_key.shape[2], k.shape[1])
        present = TensorType(k.dtype, (k.shape[0], self.kv_heads, total, head_dim))
        return (y, present, present.with_last(v_dim))

    def reference(
        self,
        q: Array,
        k: Array,
        v: Array,
        past_key: Array | None = None,
        past_value: Array | None = None,
        key_mask: Array | None = None,
        bias: Array | None = None,
        mask: Array | None = None,
    ) -> tuple[Array, ...]:
        keys, values = split_heads(k, self.kv_heads), split_heads(v, self.kv_heads)
        if past_key is not None and past_value is not None:
            keys = np.concatenate([past_key, keys], axis=2)
            values = np.concatenate([past_value, values], axis=2)
        if mask is None:
            total, queries = keys.shape[2], q.shape[1]
            mask = self.visibility.allowed(queries, total, key_mask)[:, None]
        y = attend(q, keys, values, self.heads, self.kv_heads, self.scale, mask, self.softcap, bias)
        return (y, keys, values) if self.cache else (y,)

    def rounding(self, operands: Sequence[Array | None], results: Sequence[Array]) -> tuple[Array, ...]:
        y, *present = (np.abs(r) for r in results)
        return (y + capped(self.softcap, self.heads, self.kv_heads, operands[2], operands[4:5]), *present)

    def scratch(self, inputs: Sizes, outputs: Sequence[tuple[int, ...]]) -> int:
        """Scores: [batch, heads, queries, total]."""
        q, k, _, past = (*inputs, None, None, None)[:4]
        return 0 if q is None or k is None else prod(q[:2]) * self.heads * (k[1] + (past[2] if past is not None else 0))

    def macs(self, inputs: Sizes, outputs: Sequence[tuple[int, ...]]) -> int:
        q, k, v, past = (*inputs, None, None, None)[:4]
        if q is None or k is None or v is None:
            return 0
        total = k[1] + (past[2] if past is not None else 0)
        return prod(q) * total + prod(q[:2]) * self.heads * total * (v[2] // self.kv_heads)
