"""A learned bias of attention scores that depends on how far apart two tokens are."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from flowc.ir.dtypes import ANY, FLOAT
from flowc.ir.op import Array, Op
from flowc.ir.types import TensorType, require


@dataclass(frozen=True)
class RelativeBias(Op, name="relative_bias", operands=("new", "table"), dtypes={"new": ANY, "table": FLOAT}):
    """Bias [1, heads, sequence, sequence] of the scores of query i and key j, from the row `bucket(j - i)` of a table.

    new [batch, sequence, ...] any tensor over the tokens; table [rows >= buckets, heads]. T5's bidirectional buckets
    (Raffel et al. 2020; HF `MPNetEncoder.relative_position_bucket`): half for keys behind the query, half for keys
    ahead; in each half the first half stand for one distance each, the others for logarithmically wider ranges up to
    `max_distance`, beyond which all share the last. Distances are of columns, padding included, as in HF.
    """

    buckets: int = 32
    max_distance: int = 128

    category = "mask"

    def bucket(self, distance: Array) -> Array:
        """Rows of the table for key column minus query column; int64 to int64, float32 logarithms as in HF."""
        half = self.buckets // 2
        exact = half // 2
        far = np.abs(distance)
        with np.errstate(divide="ignore"):
            logs = np.log(far.astype(np.float32) / np.float32(exact))
        ratio = logs / np.float32(math.log(self.max_distance / exact)) * np.float32(half - exact)
        wide = exact + np.where(far < exact, 0, ratio).astype(np.int64)
        return (distance > 0) * half + np.where(far < exact, far, np.minimum(wide, half - 1))

    exact = True

    def infer(self, new: TensorType, table: TensorType) -> tuple[TensorType, ...]:
        require(self.buckets % 4 == 0 and self.max_distance > self.buckets // 4,
                f"{self.buckets} buckets do not divide distances up to {self.max_distance}")  # fmt: skip
        rows = table.shape[0]
        require(table.rank == 2 and isinstance(rows, int) and rows >= self.buckets,
                f"the table must be [at least {self.buckets}, heads], not {table}")  # fmt: skip
        length = new.shape[1]
        return (TensorType(table.dtype, (1, table.shape[1], length, length)),)

    def reference(self, new: Array, table: Array) -> tuple[Array, ...]:
        columns = np.arange(new.shape[1], dtype=np.int64)
        rows = self.bucket(columns[None, :] - columns[:, None])
        return (np.ascontiguousarray(table[rows].transpose(2, 0, 1)[None]),)
