"""Vectors of whole sequences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from flowc.ir.dtypes import FLOAT, INTEGER
from flowc.ir.op import Array, Op
from flowc.ir.types import TensorType, require

PoolKind = Literal["mean", "mean_sqrt_len", "max", "cls", "last"]


@dataclass(frozen=True)
class Pool(Op, name="pool", operands=("x", "mask"), dtypes={"x": FLOAT, "mask": INTEGER}):
    """One vector per row: x [batch, sequence, width], mask int64 [batch, sequence] -> [batch, width].

    Over the tokens that are not padding: their mean, their sum over the square root of their number, the greatest value
    of each channel, the first one (`cls`) or the last one (sentence-transformers `Pooling`). A row without any token
    gives zeros for the means, and its first column for the others.
    """

    kind: PoolKind

    @property
    def wide(self) -> bool:
        return True

    def neutral(self) -> Mapping[str, float]:
        return {"mask": 1.0}

    def infer(self, x: TensorType, mask: TensorType | None = None) -> tuple[TensorType, ...]:
        require(x.rank == 3, f"expected [batch, sequence, width], not {x}")
        require(mask is None or mask.rank == 2, f"the mask must be [batch, sequence], not {mask}")
        return (x.with_shape(x.shape[0], x.shape[2]),)

    def reference(self, x: Array, mask: Array | None = None) -> tuple[Array, ...]:
        rows, length = x.shape[:2]
        valid = _valid(x, mask)
        match self.kind:
            case "mean" | "mean_sqrt_len":
                count = np.maximum(valid.sum(axis=1, keepdims=True), 1).astype(x.dtype)
                total = np.where(valid[..., None], x, x.dtype.type(0)).sum(axis=1)
                return (total / (np.sqrt(count) if self.kind == "mean_sqrt_len" else count),)
            case "max":
                some = valid.copy()
                some[:, 0] |= ~valid.any(axis=1)
                kept: Array = np.where(some[..., None], x, -np.inf).astype(x.dtype)
                return (kept.max(axis=1),)
            case "cls":
                return (x[np.arange(rows), np.argmax(valid, axis=1)],)
            case "last":
                columns = np.broadcast_to(np.arange(length, dtype=np.int64), (rows, length))
                last: Array = np.max(columns, axis=1, where=valid, initial=0)
                return (x[np.arange(rows), last],)


def _valid(x: Array, mask: Array | None) -> Array:
    """Which tokens count: bool [batch, sequence]."""
    return np.ones(x.shape[:2], bool) if mask is None else mask != 0


@dataclass(frozen=True)
class L2Normalize(Op, name="l2_normalize", operands=("x",), dtypes={"x": FLOAT}):
    """`x / max(|x|, eps)` with the Euclidean length over the last axis (torch.nn.functional.normalize)."""

    eps: float = 1e-12

    @property
    def wide(self) -> bool:
        return True

    def infer(self, x: TensorType) -> tuple[TensorType, ...]:
        return (x,)

    def reference(self, x: Array) -> tuple[Array, ...]:
        length = np.sqrt((x * x).sum(axis=-1, keepdims=True))
        return (x / np.maximum(length, x.dtype.type(self.eps)),)
