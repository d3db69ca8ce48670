"""Positions of tokens, from what is padding and what is cached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from flowc.ir.dtypes import ANY, INTEGER
from flowc.ir.op import Array, Op
from flowc.ir.traits import Types
from flowc.ir.types import TensorType, require


@dataclass(frozen=True)
class Positions(
    Op, name="positions", operands=("new", "mask", "past"), dtypes={"new": ANY, "mask": INTEGER, "past": ANY}
):
    """Position of each new token: its row's cumulative sum of the mask minus one, 0 where masked (HF `generate`).

    new [batch, sequence, ...] any tensor over the new tokens; mask int64 [batch, total]; past [batch, heads, past, dim]
    any cached tensor. Without a mask nothing is padding, and positions count on from the past: [1, sequence].
    Result int64 [batch, sequence].

    With `compact`, a row has as many columns as its mask has ones, its new tokens are the last of them, and a prompt's
    padding comes after its tokens (see `GroupQueryAttention`).
    """

    compact: bool = False

    exact = True

    def neutral(self) -> Mapping[str, float]:
        return {"mask": 1.0}

    @property
    def is_compact(self) -> bool:
        return self.compact

    def compacted(self) -> Positions:
        return replace(self, compact=True)

    def infer(
        self, new: TensorType, mask: TensorType | None = None, past: TensorType | None = None
    ) -> tuple[TensorType, ...]:
        require(new.rank >= 2, f"expected [batch, sequence, ...], not {new}")
        require(mask is None or mask.rank == 2, f"the mask must be [batch, total], not {mask}")
        return (TensorType("int64", (new.shape[0], new.shape[1])),)

    def reference(self, new: Array, mask: Array | None = None, past: Array | None = None) -> tuple[Array, ...]:
        batch, length = new.shape[:2]
        if mask is not None and self.compact:
            lengths = mask.sum(axis=1, keepdims=True)
            places = np.maximum(lengths - length, 0) + np.arange(int(length), dtype=np.int64)
            return (np.where(places < lengths, places, 0).astype(np.int64),)
        if mask is not None:
            columns = np.where(mask != 0, np.cumsum(mask, axis=1) - 1, 0)
            return (columns[:, columns.shape[1] - length :].astype(np.int64),)
        start = 0 if past is None else past.shape[2]
        return (np.broadcast_to(np.arange(start, start + length, dtype=np.int64), (batch, length)).copy(),)


@dataclass(frozen=True)
class TakeLast(Op, name="take_last", operands=("x", "mask"), dtypes={"x": ANY, "mask": INTEGER}):
    """The row's last valid new token: x [batch, sequence, ...], mask int64 [batch, total] -> [batch, 1, ...].

    A row whose new tokens are all masked gives its first token (HF `logits_to_keep=1`, made right for padding).
    `compact` as in `Positions`.
    """

    compact: bool = False

    exact = True

    def neutral(self) -> Mapping[str, float]:
        return {"mask": 1.0}

    @property
    def is_compact(self) -> bool:
        return self.compact

    def compacted(self) -> TakeLast:
        return replace(self, compact=True)

    def is_identity(self, types: Types) -> bool:
        return types[0] is not None and types[0].shape[1] == 1

    def infer(self, x: TensorType, mask: TensorType | None = None) -> tuple[TensorType, ...]:
        require(x.rank >= 2, f"expected [batch, sequence, ...], not {x}")
        return (x.with_shape(x.shape[0], 1, *x.shape[2:]),)

    def reference(self, x: Array, mask: Array | None = None) -> tuple[Array, ...]:
        length = x.shape[1]
        if mask is None:
            return (x[:, length - 1 :],)
        if self.compact:
            last = np.clip(mask.sum(axis=1), 1, length) - 1
            return (x[np.arange(len(x)), last][:, None],)
        valid = mask[:, mask.shape[1] - length :] != 0
        last = np.max(valid * np.arange(length, dtype=np.int64), axis=1)
        return (x[np.arange(len(x)), last][:, None],)


@dataclass(frozen=True)
class TakeFirst(Op, name="take_first", operands=("x", "mask"), dtypes={"x": ANY, "mask": INTEGER}):
    """The row's first valid token: x [batch, sequence, ...], mask int64 [batch, sequence] -> [batch, 1, ...].

    A row that is all padding gives its first column.
    """

    exact = True

    def is_identity(self, types: Types) -> bool:
        return types[0] is not None and types[0].shape[1] == 1

    def infer(self, x: TensorType, mask: TensorType) -> tuple[TensorType, ...]:
        require(x.rank >= 2 and x.shape[:2] == mask.shape, f"mask {mask} is not that of {x}")
        return (x.with_shape(x.shape[0], 1, *x.shape[2:]),)

    def reference(self, x: Array, mask: Array) -> tuple[Array, ...]:
        return (x[np.arange(len(x)), np.argmax(mask != 0, axis=1)][:, None],)
