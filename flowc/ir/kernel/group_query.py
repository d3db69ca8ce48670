"""Attention over a cache that lies in one place, and the masks and positions that go with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import ClassVar

import numpy as np

from flowc.ir.core.attention import Attention, capped
from flowc.ir.core.rope import Rope
from flowc.ir.dtypes import BOOL, FLOAT, INTEGER, largest, numpy_dtype, widened
from flowc.ir.graph import MadeBy, Node
from flowc.ir.kernel.kernel import Kernel, Limits
from flowc.ir.op import Array, Op
from flowc.ir.traits import Sizes
from flowc.ir.types import TensorType, add_dims, known, require


def hidden_score(dtype: str) -> np.generic:
    """What a masked key's score is set to: so low that it vanishes beside any other, and finite."""
    return numpy_dtype(dtype).type(-1e30 if numpy_dtype(dtype).itemsize > 2 else -0.5 * largest(dtype))


@dataclass(frozen=True)
class MaskBias(Op, name="mask_bias", operands=("mask", "bias"), dtypes={"mask": BOOL, "bias": FLOAT}, level="kernel"):
    """What to add to scores so that masked keys vanish: 0 or `bias` where mask is True, else a huge negative number.

    mask bool [batch or 1, 1, queries, total]; bias float, broadcast to it. Finite, so that a query that sees no key
    gives numbers that mean nothing, not NaN. Without a bias the result is of the type `dtype`.
    """

    dtype: str = "float32"

    category = "mask"
    specified_at_padding = True

    def neutral(self) -> Mapping[str, float]:
        return {"bias": 0.0}

    def infer(self, mask: TensorType, bias: TensorType | None = None) -> tuple[TensorType, ...]:
        require(mask.dtype == "bool" and mask.rank == 4, f"expected a bool mask of four axes, not {mask}")
        if bias is None:
            return (TensorType(self.dtype, mask.shape),)
        require(bias.rank == 4 and bias.shape[2:] == mask.shape[2:], f"bias {bias} does not fit mask {mask}")
        batch = mask.shape[0] if bias.shape[0] == 1 else bias.shape[0]
        return (bias.with_shape(batch, *bias.shape[1:]),)

    def reference(self, mask: Array, bias: Array | None = None) -> tuple[Array, ...]:
        kept = np.zeros(1, numpy_dtype(self.dtype)) if bias is None else bias
        return (np.where(mask, kept, hidden_score(kept.dtype.name)),)


@dataclass(frozen=True)
class GroupQueryAttention(
    Op,
    Kernel,
    name="group_query_attention",
    operands=("q", "k", "v", "past_key", "past_value", "mask", "bias", "cos", "sin"),
    dtypes={"q k v past_key past_value bias cos sin": FLOAT, "mask": INTEGER},
    level="kernel",
):
    """Causal attention that may write new keys where the past lies (com.microsoft GroupQueryAttention).

    q [batch, sequence, heads * head_dim]; k, v [batch, sequence, kv_heads * head_dim]; past_key and past_value
    [batch, kv_heads, past, head_dim]; mask int64 [batch, total] gives the number of columns. bias float
    [1 or batch, heads or 1, sequence, total] is added to the scores. With cos and sin [positions, dim / 2] the operator
    rotates q and k itself.

    Usually every row has all columns, and new keys are the last ones. With `compact` a row has as many columns as its
    mask has ones: its new keys follow its own last one, padding comes after all of them, and only a prompt's tokens may
    be padding. Results: as `Attention` with a cache; rows of padding mean nothing.

    With `static`, past may be a buffer that is longer than what it holds, and mask [batch, total] has up to as many
    columns as it: the one new token's column is the last one that the mask keeps in any row, and present is as long as
    the longer of both.
    """

    heads: int
    kv_heads: int
    scale: float
    window: int | None = None
    softcap: float | None = None
    interleaved: bool = False
    compact: bool = False
    static: bool = False
    ragged: bool = False
    """Whether rows say how many of several new tokens over a past are their own; without, such a call has one row."""

    by_pass = "fuse_attention"
    category = "attention"
    tables: ClassVar[Mapping[str, str]] = {"cos": "q", "sin": "q"}

    @classmethod
    def why_not(cls, node: Node, limits: Limits, made_by: MadeBy) -> str:
        """Limits: `head_multiple`, and for the rope inside `rotary_head_multiple` and `rotary_dim_multiple`."""
        op = node.op
        q, k, v = (node.need(n) for n in ("q", "k", "v"))
        assert isinstance(op, Attention)
        head_dim = int(q.shape[-1]) // op.heads
        if head_dim % limits["head_multiple"]:
            return f"heads of {head_dim} channels are no multiple of {limits['head_multiple']}"
        if v.shape[-1] != k.shape[-1]:
            return "heads of keys and values differ in width"
        if q.shape[:2] != k.shape[:2]:
            return "it takes as many queries as new keys"
        if node.input("bias") is not None or node.input("mask") is not None or op.visibility.right is not None:
            return "it has a bias or a mask of its own"
        if not op.visibility.causal and q.shape[1] != 1:
            return "its queries see later keys"
        return ""

    @property
    def is_compact(self) -> bool:
        return self.compact

    @property
    def one_row_over_a_past(self) -> bool:
        return self.compact and not self.ragged

    def windows(self) -> tuple[int, ...]:
        return () if self.window is None else (self.window,)

    def scratch(self, inputs: Sizes, outputs: Sequence[tuple[int, ...]]) -> int:
        """Scores: [batch, heads, sequence, total]."""
        return prod(outputs[0][:2]) * self.heads * outputs[1][2]

    def infer(
        self,
        q: TensorType,
        k: TensorType,
        v: TensorType,
        past_key: TensorType | None = None,
        past_value: TensorType | None = None,
        mask: TensorType | None = None,
        bias: TensorType | None = None,
        cos: TensorType | None = None,
        sin: TensorType | None = None,
    ) -> tuple[TensorType, ...]:
        width, kv_width = known(q.shape[-1], "the width of q"), known(k.shape[-1], "the width of k")
        require(self.heads % self.kv_heads == 0, f"{self.heads} heads cannot share {self.kv_heads} key heads")
        require(k == v and q.shape[:2] == k.shape[:2], f"q {q}, k {k} and v {v} do not go together")
        require(width // self.heads * self.kv_heads == kv_width, f"heads of q {q} and k {k} differ in width")
        require(not (self.compact or self.static) or mask is not None, "a compact or static cache needs a mask")
        total = k.shape[1] if past_key is None else add_dims(past_key.shape[2], k.shape[1])
        present = TensorType(k.dtype, (k.shape[0], self.kv_heads, total, width // self.heads))
        return (q, present, present)

    def reference(
        self,
        q: Array,
        k: Array,
        v: Array,
        past_key: Array | None = None,
        past_value: Array | None = None,
        mask: Array | None = None,
        bias: Array | None = None,
        cos: Array | None = None,
        sin: Array | None = None,
    ) -> tuple[Array, ...]:
        batch, new = q.shape[:2]
        past = 0 if past_key is None else past_key.shape[2]
        lengths, room = np.full(batch, past + new), past + new
        if self.static and mask is not None:
            room = max(past, mask.shape[1])
            numbers: Array = np.arange(int(mask.shape[1]))
            lengths = np.full(batch, int(np.max(mask * numbers)) + 1)
        if self.compact and mask is not None:
            lengths = mask.sum(axis=1)
        starts = np.maximum(lengths - new, 0)
        places: Array = starts[:, None] + np.arange(int(new))
        if cos is not None and sin is not None:
            q, k = (
                Rope(heads, self.interleaved).reference(x, cos, sin, np.minimum(places, len(cos) - 1))[0]
                for x, heads in ((q, self.heads), (k, self.kv_heads))
            )
        states: list[Array] = []
        for fresh, old in ((k, past_key), (v, past_value)):
            state = np.zeros((batch, self.kv_heads, room, fresh.shape[-1] // self.kv_heads), fresh.dtype)
            if old is not None:
                state[:, :, :past] = old
            split = fresh.reshape(batch, new, self.kv_heads, -1).transpose(0, 2, 1, 3)
            for row in range(batch):
                state[row, :, starts[row] : starts[row] + new] = split[row]
            states.append(state)
        columns: Array = np.arange(int(room))
        seen = (columns <= places[..., None]) & (columns < np.maximum(lengths, 1)[:, None, None])
        if self.window is not None:
            seen &= places[..., None] - columns < self.window
        group = self.heads // self.kv_heads
        keys, values = (np.repeat(widened(s), group, axis=1) for s in states)
        number = keys.dtype.type
        queries = widened(q).reshape(batch, new, self.heads, -1).transpose(0, 2, 1, 3)
        scores = queries @ keys.transpose(0, 1, 3, 2) * number(self.scale)
        if self.softcap is not None:
            scores = np.tanh(scores / number(self.softcap)) * number(self.softcap)
        if bias is not None:
            scores[..., : bias.shape[-1]] += widened(bias)
        scores = np.where(seen[:, None], scores, -np.inf)
        top = np.maximum(scores.max(axis=-1, keepdims=True), np.finfo(number).min)
        weights = np.exp(scores - top)
        y = (weights / np.maximum(weights.sum(axis=-1, keepdims=True), np.finfo(number).tiny)) @ values
        return (np.ascontiguousarray(y.transpose(0, 2, 1, 3)).reshape(q.shape).astype(q.dtype), *states)

    def rounding(self, operands: Sequence[Array | None], results: Sequence[Array]) -> tuple[Array, ...]:
        y, *present = (np.abs(r) for r in results)
        return (y + capped(self.softcap, self.heads, self.kv_heads, operands[2], operands[4:5]), *present)

    def macs(self, inputs: Sizes, outputs: Sequence[tuple[int, ...]]) -> int:
        q = inputs[0]
        return 0 if q is None else 2 * prod(q) * outputs[1][2]


@dataclass(frozen=True)
class PackedGroupQueryAttention(
    Op,
    Kernel,
    name="packed_group_query_attention",
    operands=("qkv", "past_key", "past_value", "mask", "bias", "cos", "sin"),
    dtypes={"qkv past_key past_value bias cos sin": FLOAT, "mask": INTEGER},
    level="kernel",
):
    """GroupQueryAttention whose queries, keys and values lie side by side, as one projection makes them.

    qkv [batch, sequence, (heads + 2 * kv_heads) * head_dim]; the rest, and the results, as there.
    """

    kernel: GroupQueryAttention

    by_pass = "fuse_attention"
    category = "attention"
    tables: ClassVar[Mapping[str, str]] = {"cos": "qkv", "sin": "qkv"}

    @property
    def is_compact(self) -> bool:
        return self.kernel.compact

    @property
    def one_row_over_a_past(self) -> bool:
        return self.kernel.one_row_over_a_past

    def windows(self) -> tuple[int, ...]:
        return self.kernel.windows()

    def scratch(self, inputs: Sizes, outputs: Sequence[tuple[int, ...]]) -> int:
        return self.kernel.scratch(inputs, outputs)

    def infer(
        self,
        qkv: TensorType,
        past_key: TensorType | None = None,
        past_value: TensorType | None = None,
        mask: TensorType | None = None,
        bias: TensorType | None = None,
        cos: TensorType | None = None,
        sin: TensorType | None = None,
    ) -> tuple[TensorType, ...]:
        width, sizes = known(qkv.shape[-1], "the width of qkv"), self.sizes(qkv)
        require(sum(sizes) == width, f"{width} channels do not split into the heads of q, k and v")
        q, k, v = (qkv.with_last(size) for size in sizes)
        return self.kernel.infer(q, k, v, past_key, past_value, mask, bias, cos, sin)

    def reference(
        self,
        qkv: Array,
        past_key: Array | None = None,
        past_value: Array | None = None,
        mask: Array | None = None,
        bias: Array | None = None,
        cos: Array | None = None,
        sin: Array | None = None,
    ) -> tuple[Array, ...]:
        q, k, v = np.split(qkv, np.cumsum(self._sizes(qkv.shape[-1]))[:2], axis=-1)
        return self.kernel.reference(q, k, v, past_key, past_value, mask, bias, cos, sin)

    def sizes(self, qkv: TensorType) -> tuple[int, int, int]:
        """Channels of q, of k and of v."""
        return self._sizes(known(qkv.shape[-1], "the width of qkv"))

    def _sizes(self, width: int) -> tuple[int, int, int]:
        heads, kv_heads = self.kernel.heads, self.kernel.kv_heads
        head_dim = width // (heads + 2 * kv_heads)
        return heads * head_dim, kv_heads * head_dim, kv_heads * head_dim

    def rounding(self, operands: Sequence[Array | None], results: Sequence[Array]) -> tuple[Array, ...]:
        y, *present = (np.abs(r) for r in results)
        qkv = operands[0]
        v = None if qkv is None else qkv[..., -self._sizes(qkv.shape[-1])[2] :]
        past = operands[2:3]
        return (y + capped(self.kernel.softcap, self.kernel.heads, self.kernel.kv_heads, v, past), *present)

    def macs(self, inputs: Sizes, outputs: Sequence[tuple[int, ...]]) -> int:
        return 2 * prod(outputs[0]) * outputs[1][2]
