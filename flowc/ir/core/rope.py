"""Rotary position embedding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from flowc.ir.op import Array, Op
from flowc.ir.rope import RopeFacts
from flowc.ir.traits import Types
from flowc.ir.types import TensorType, known, require

FEW_POSITIONS = 64
"""Positions that angles are tried at where the context is not known."""


@dataclass(frozen=True)
class RopeAngles(Op, name="rope_angles", operands=("position_ids",)):
    """Cosine and sine of every new token's angles.

    position_ids int64 [batch, sequence] -> two of float32 [batch, sequence, pairs]. longrope takes its long factors
    when a position of the call reaches past the original length (HF `dynamic_rope_update`).
    """

    facts: RopeFacts

    category = "rope"

    def switches(self) -> tuple[int, ...]:
        return (self.facts.original_length,) if self.facts.switches else ()

    def index_bound(self, operand: str, types: Types, context: int | None) -> int | None:
        return context or FEW_POSITIONS

    def infer(self, position_ids: TensorType) -> tuple[TensorType, ...]:
        require(position_ids.rank == 2, f"positions must be [batch, sequence], not {position_ids}")
        table = TensorType("float32", (*position_ids.shape, self.facts.pairs))
        return (table, table)

    def reference(self, position_ids: Array) -> tuple[Array, ...]:
        long = self.facts.switches and int(position_ids.max(initial=-1)) + 1 > self.facts.original_length
        return self.facts.cos_sin(position_ids, long)


@dataclass(frozen=True)
class SwitchRows(Op, name="switch_rows", operands=("position_ids",)):
    """Rows of a table that holds two sets one above the other: int64 [batch, sequence] to the same.

    The ids as they are; `rows` further down when any of them lies at or beyond `length` (longrope's second set).
    """

    length: int
    rows: int

    def switches(self) -> tuple[int, ...]:
        return (self.length,)

    def index_bound(self, operand: str, types: Types, context: int | None) -> int | None:
        return self.rows

    def infer(self, position_ids: TensorType) -> tuple[TensorType, ...]:
        return (position_ids,)

    def reference(self, position_ids: Array) -> tuple[Array, ...]:
        far = int(position_ids.max(initial=-1)) >= self.length
        return (position_ids + self.rows * far,)


@dataclass(frozen=True)
class Rope(Op, name="rope", operands=("x", "cos", "sin", "position_ids")):
    """Rotates the first `2 * cos.shape[-1]` channels of each head of x [batch, sequence, heads * head_dim].

    cos and sin are [batch or 1, sequence, dim / 2], or, with position_ids int64 [batch, sequence], tables
    [positions, dim / 2]. Half-split pairs (NeoX, HF `rotate_half`), or neighbours when `interleaved` (GPT-J, FLUX).
    """

    heads: int
    interleaved: bool = False

    category = "rope"
    tables: ClassVar[Mapping[str, str]] = {"cos": "position_ids", "sin": "position_ids"}
    tokenwise = ("x", "cos", "sin", "position_ids")

    def infer(
        self, x: TensorType, cos: TensorType, sin: TensorType, position_ids: TensorType | None = None
    ) -> tuple[TensorType, ...]:
        width = known(x.shape[-1], "the width of x")
        require(width % self.heads == 0, f"{width} channels do not split into {self.heads} heads")
        half = known(cos.shape[-1], "the width of the table")
        require(
            2 * half <= width // self.heads, f"a table of {half} angles does not fit heads of {width // self.heads}"
        )
        require(cos == sin, f"cos {cos} and sin {sin} differ")
        require(cos.rank == (3 if position_ids is None else 2), f"unexpected table {cos}")
        tokens = {d for d in (x.shape[1], cos.shape[1]) if isinstance(d, int)} if position_ids is None else set[int]()
        require(len(tokens) < 2, f"a table of {cos.shape[1]} tokens does not fit {x.shape[1]} tokens")
        return (x,)

    def reference(self, x: Array, cos: Array, sin: Array, position_ids: Array | None = None) -> tuple[Array, ...]:
        if position_ids is not None:
            cos, sin = cos[position_ids], sin[position_ids]
        cos, sin = cos[:, :, None], sin[:, :, None]
        heads = x.reshape(*x.shape[:2], self.heads, -1)
        dim = 2 * cos.shape[-1]
        turned, rest = heads[..., :dim], heads[..., dim:]
        if self.interleaved:
            a, b = turned[..., 0::2], turned[..., 1::2]
            y = np.stack([a * cos - b * sin, b * cos + a * sin], axis=-1).reshape(turned.shape)
        else:
            a, b = turned[..., : dim // 2], turned[..., dim // 2 :]
            y = np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
        return (np.concatenate([y, rest], axis=-1).reshape(x.shape).astype(x.dtype),)
