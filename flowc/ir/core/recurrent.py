"""Operators whose memory of earlier tokens has a fixed size: the gated delta rule and the causal convolution.

Their state is what it is after each row's last valid token. A masked token leaves it as it was, wherever it stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from flowc.ir.dtypes import FLOAT, INTEGER, widened
from flowc.ir.op import Array, Op
from flowc.ir.traits import Sizes
from flowc.ir.types import TensorType, known, require


@dataclass(frozen=True)
class DeltaScan(
    Op,
    name="delta_scan",
    operands=("q", "k", "v", "g", "beta", "state", "mask"),
    dtypes={"q k v g beta state": FLOAT, "mask": INTEGER},
    level="core",
):
    """The gated delta rule (Yang et al. 2024; HF `torch_recurrent_gated_delta_rule`), per value head and token.

        S <- exp(g) S;   S <- S + k (beta (v - S^T k))^T;   y = scale * S^T q

    q, k [batch, sequence, key_heads * key_dim]; v [batch, sequence, value_heads * value_dim]; each key head serves
    value_heads / key_heads neighbouring value heads. g (log of the decay) and beta are [batch, sequence, value_heads].
    state [batch, value_heads, key_dim, value_dim] is S before the first token, zeros when absent. mask int64
    [batch, total], its last columns the tokens: a masked one counts as g = 0 and beta = 0.
    Results: y as v, and the state after the last token.
    """

    key_heads: int
    value_heads: int
    scale: float

    category = "attention"

    @property
    def wide(self) -> bool:
        return True

    def neutral(self) -> Mapping[str, float]:
        return {"mask": 1.0, "state": 0.0}

    def infer(
        self,
        q: TensorType,
        k: TensorType,
        v: TensorType,
        g: TensorType,
        beta: TensorType,
        state: TensorType | None = None,
        mask: TensorType | None = None,
    ) -> tuple[TensorType, ...]:
        require(q == k, f"q {q} and k {k} differ")
        require(q.rank == 3 and v.rank == 3, f"q {q} and v {v} must be [batch, sequence, heads * dim]")
        require(
            self.value_heads % self.key_heads == 0,
            f"{self.value_heads} value heads cannot share {self.key_heads} key heads",
        )
        width, v_width = known(k.shape[-1], "the width of k"), known(v.shape[-1], "the width of v")
        require(width % self.key_heads == 0, f"k has {width} channels, not a multiple of {self.key_heads} heads")
        require(
            v_width % self.value_heads == 0, f"v has {v_width} channels, not a multiple of {self.value_heads} heads"
        )
        require(v.shape[:2] == q.shape[:2], f"q {q} and v {v} have different tokens")
        gates = v.with_last(self.value_heads)
        require(g == gates and beta == gates, f"g {g} and beta {beta} must be {gates}")
        after = v.with_shape(v.shape[0], self.value_heads, width // self.key_heads, v_width // self.value_heads)
        require(state is None or state == after, f"the state must be {after}, not {state}")
        require(mask is None or mask.rank == 2, f"the mask must be [batch, total], not {mask}")
        return (v, after)

    def reference(
        self,
        q: Array,
        k: Array,
        v: Array,
        g: Array,
        beta: Array,
        state: Array | None = None,
        mask: Array | None = None,
    ) -> tuple[Array, ...]:
        batch, length = v.shape[:2]
        dtype = v.dtype
        q, k, v, g, beta = (widened(x) for x in (q, k, v, g, beta))
        if mask is not None:
            valid = (mask[:, mask.shape[1] - length :] != 0)[:, :, None]
            g, beta = np.where(valid, g, 0).astype(g.dtype), np.where(valid, beta, 0).astype(beta.dtype)
        group = self.value_heads // self.key_heads
        keys, queries = (np.repeat(x.reshape(batch, length, self.key_heads, -1), group, axis=2) for x in (k, q))
        values = v.reshape(batch, length, self.value_heads, -1)
        memory: Array = np.zeros((batch, self.value_heads, keys.shape[-1], values.shape[-1]), v.dtype)
        if state is not None:
            memory = widened(state)
        out: Array = np.empty_like(values)
        for t in range(length):
            memory = memory * np.exp(g[:, t])[:, :, None, None]
            recalled = np.einsum("bhkv,bhk->bhv", memory, keys[:, t])
            change = (values[:, t] - recalled) * beta[:, t, :, None]
            memory = memory + keys[:, t, :, :, None] * change[:, :, None, :]
            out[:, t] = np.einsum("bhkv,bhk->bhv", memory, queries[:, t]) * v.dtype.type(self.scale)
        return (out.reshape(v.shape).astype(dtype, copy=False), memory.astype(dtype, copy=False))

    def macs(self, inputs: Sizes, outputs: Sequence[tuple[int, ...]]) -> int:
        return 3 * outputs[0][1] * prod(outputs[1])


@dataclass(frozen=True)
class CausalConv(
    Op,
    name="causal_conv",
    operands=("x", "weight", "bias", "state", "mask"),
    dtypes={"x weight bias state": FLOAT, "mask": INTEGER},
    level="core",
):
    """Depthwise convolution over each channel's current and earlier valid tokens (torch `Conv1d`, groups = channels).

    x [batch, sequence, channels], weight [channels, 1, kernel], bias [channels]; state [batch, channels, kernel - 1]
    holds the inputs before the first token, zeros when absent. mask int64 [batch, total], its last columns the tokens:
    a valid token never sees a masked one. A masked token gets what the valid token before it got (or the row's first).
    Results: y as x, and the last kernel - 1 inputs of valid tokens [batch, channels, kernel - 1].
    """

    category = "matrix"

    def neutral(self) -> Mapping[str, float]:
        return {"bias": 0.0, "state": 0.0, "mask": 1.0}

    def infer(
        self,
        x: TensorType,
        weight: TensorType,
        bias: TensorType | None = None,
        state: TensorType | None = None,
        mask: TensorType | None = None,
    ) -> tuple[TensorType, ...]:
        require(x.rank == 3, f"x must be [batch, sequence, channels], not {x}")
        channels = known(x.shape[-1], "the width of x")
        require(
            weight.rank == 3 and weight.shape[:2] == (channels, 1),
            f"the weight must be [{channels}, 1, kernel], not {weight}",
        )
        kernel = known(weight.shape[2], "the kernel")
        require(kernel >= 2, "a kernel of one tap needs no state: it is a scale")
        require(bias is None or bias.shape == (channels,), f"bias {bias} does not fit {channels} channels")
        after = x.with_shape(x.shape[0], channels, kernel - 1)
        require(state is None or state == after, f"the state must be {after}, not {state}")
        require(mask is None or mask.rank == 2, f"the mask must be [batch, total], not {mask}")
        return (x, after)

    def reference(
        self,
        x: Array,
        weight: Array,
        bias: Array | None = None,
        state: Array | None = None,
        mask: Array | None = None,
    ) -> tuple[Array, ...]:
        batch, length, channels = x.shape
        kernel = weight.shape[2]
        before = np.zeros((batch, channels, kernel - 1), x.dtype) if state is None else state
        out, after = np.empty_like(x), np.empty_like(before)
        for row in range(batch):
            valid = np.ones(length, bool) if mask is None else mask[row, mask.shape[1] - length :] != 0
            order = np.concatenate([np.flatnonzero(valid), np.flatnonzero(~valid)])
            line = np.concatenate([before[row].T, x[row, order]])
            y = sum(line[tap : tap + length] * weight[:, 0, tap] for tap in range(kernel))
            y = y if bias is None else y + bias
            out[row] = np.asarray(y)[np.maximum(np.cumsum(valid) - 1, 0)]
            count = int(valid.sum())
            after[row] = line[count : count + kernel - 1].T
        return (out, after)

    def macs(self, inputs: Sizes, outputs: Sequence[tuple[int, ...]]) -> int:
        weight = inputs[1]
        return 0 if weight is None else prod(outputs[0]) * weight[2]
