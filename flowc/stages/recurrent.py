from __future__ import annotations

import numpy as np

from flowc.frontend.builder import Builder
from flowc.frontend.stage import Stage, attr
from flowc.ir.core.elementwise import Binary, Function, Unary
from flowc.ir.core.layout import Reshape, Split
from flowc.ir.core.linear import Linear
from flowc.ir.core.norm import Norm
from flowc.ir.core.recurrent import CausalConv, DeltaScan
from flowc.ir.graph import Value
from flowc.ir.types import BATCH
from flowc.ir.weights.expressions import Concat, Constant, NegatedExp, Rows, Weight
from flowc.stages.blocks.decoder import gate_times, linear, rms_norm
from flowc.stages.blocks.tokens import layer_index, require_tokens, require_whole
from flowc.stages.streams import stream

GDN_SLOTS = ("gdn.q", "gdn.k", "gdn.v", "gdn.g", "gdn.beta")


class GdnScan(Stage, name="gdn_scan"):
    """The gated delta rule over the streams gdn.q, gdn.k, gdn.v, gdn.g and gdn.beta (Yang et al. 2024).

    q, k [batch, sequence, key_heads * key_dim] and v [batch, sequence, value_heads * value_dim], or with their heads as
    an axis of its own, which the result then has too; g, the log of the decay, and beta [batch, sequence, value_heads].
    S <- exp(g) S; S <- S + k (beta (v - S^T k))^T; y = scale S^T q. Padding leaves the state alone.

    With `carry` the state travels as `past_key_values.N.recurrent_state`, [batch, value_heads, key_dim, value_dim].
    A flow without it that is not a decoder says `kind: encoder`.
    """

    cached = True
    reads = ("streams", "attention_mask", "cache")
    writes = ("active", "cache")
    reference = "torch_recurrent_gated_delta_rule of Qwen3NextGatedDeltaNet"
    example = "gdn_scan: {key_heads: 2, value_heads: 4, carry: true, layer: 0}"
    key_heads: int = attr(doc="Heads of q and k.", symbol="key_heads", gt=0)
    value_heads: int = attr(doc="Heads of v; each key head serves the same number of them.", symbol="value_heads", gt=0)
    scale: float | None = attr(doc="Factor of the result; 1 / sqrt(key_dim) by default.", default=None, gt=0)
    qk_norm_eps: float | None = attr(
        doc="Divide each head of q and k by sqrt(sum of squares + this) first; not at all by default.",
        default=None, gt=0,
    )  # fmt: skip
    carry: bool = attr(doc="Whether the state travels from call to call.", default=False)
    layer: int | None = attr(doc="Index of the state, with `carry`.", default=None, ge=0)

    def expand(self, b: Builder, x: Value) -> Value:
        q, k, v, g, beta = (stream(b, name) for name in GDN_SLOTS)
        split, shape = v.type.rank == 4, v.shape
        if split:
            q, k, v = (b.op(Reshape((*t.shape[:2], _width(b, t))), t, name="packed") for t in (q, k, v))
        if self.qk_norm_eps is not None:
            q = l2_norm(b, q, self.key_heads, self.qk_norm_eps, "q_norm")
            k = l2_norm(b, k, self.key_heads, self.qk_norm_eps, "k_norm")
        if self.carry and not b.phase.emits_cache:
            raise b.fail("wrong-phase", "a state is carried by decoders alone; this flow is of kind 'encoder'")
        if self.carry and self.layer is None:
            raise b.fail("missing-field", "stage 'gdn_scan' with `carry` needs `layer`, the index of its state")
        if not self.carry:
            require_whole(b)
        y = delta_scan(b, q, k, v, g, beta, self.key_heads, self.value_heads, self.scale,
                       self.layer if self.carry else None)  # fmt: skip
        return b.op(Reshape(shape), y) if split else y


def _width(b: Builder, x: Value) -> int:
    """All channels of x [batch, sequence, ...] together."""
    sizes = [d for d in x.shape[2:] if isinstance(d, int)]
    if len(sizes) != x.type.rank - 2:
        raise b.fail("bad-shape", f"the heads and channels of {x.type} must be known sizes")
    return int(np.prod(sizes))


def _per_head(b: Builder, x: Value, heads: int) -> int:
    """Channels of each head."""
    width = _width(b, x)
    if width % heads:
        raise b.fail("bad-shape", f"the {width} channels of {x.type} do not split into {heads} heads")
    return width // heads


def l2_norm(b: Builder, x: Value, heads: int, eps: float, name: str) -> Value:
    """Each head of x / sqrt(sum(x^2) + eps): an RMSNorm whose epsilon and gain take the head's width into account."""
    size = _per_head(b, x, heads)
    gain = b.constant(Constant(np.full(size, size**-0.5, np.float32), "l2_gain"))
    return b.op(Norm("rms", eps / size, 0.0, heads), x, gain, name=name)


def delta_scan(
    b: Builder, q: Value, k: Value, v: Value, g: Value, beta: Value, key_heads: int, value_heads: int,
    scale: float | None, layer: int | None,
) -> Value:  # fmt: skip
    """The gated delta rule; with a layer, its state continues from the past and is handed on."""
    require_tokens(b, v)
    key_dim, value_dim = _per_head(b, k, key_heads), _per_head(b, v, value_heads)
    op = DeltaScan(key_heads, value_heads, key_dim**-0.5 if scale is None else scale)
    state = None
    if layer is not None:
        state = b.past(layer, "recurrent_state", BATCH, value_heads, key_dim, value_dim)
    y, after = b.emit(op, q, k, v, g, beta, state, b.attention_mask(), name="scan")
    if layer is not None:
        b.present(layer, recurrent_state=after)
    return y


class GatedDeltaNet(Stage, name="gated_delta_net"):
    """A gated DeltaNet with its states, on normed input: projections, causal convolution, delta rule, gated norm.

    q, k, v = activation(conv(in_proj x)); q and k are divided by their length; g = -exp(A_log) softplus(a + dt_bias);
    beta = sigmoid(b); out_proj(norm(scan) * silu(z)). The states are the newest `kernel` - 1 inputs of the convolution
    [batch, channels, kernel - 1], channels being those of q, k and v, and S [batch, value_heads, key_dim, value_dim],
    after each row's last valid token; padding changes neither, wherever it stands.

    `grouped` weights come as in_proj_qkvz and in_proj_ba, whose rows are q, k, v, z and b, a of one key head after the
    other (Qwen3-Next); otherwise as in_proj_qkv, in_proj_z, in_proj_b and in_proj_a (Qwen3.5).
    """

    cached = True
    reads = ("active", "attention_mask", "cache")
    writes = ("active", "cache")
    weights = (
        "{prefix}.in_proj_qkvz.weight: [2 * (key_heads * key_dim + value_heads * value_dim), hidden] with `grouped`",
        "{prefix}.in_proj_ba.weight: [2 * value_heads, hidden] with `grouped`",
        "{prefix}.in_proj_qkv.weight: [2 * key_heads * key_dim + value_heads * value_dim, hidden] without `grouped`",
        "{prefix}.in_proj_z.weight: [value_heads * value_dim, hidden] without `grouped`",
        "{prefix}.in_proj_{b,a}.weight: [value_heads, hidden] without `grouped`",
        "{prefix}.conv1d.weight: [2 * key_heads * key_dim + value_heads * value_dim, 1, kernel]",
        "{prefix}.{A_log,dt_bias}: [value_heads]",
        "{prefix}.norm.weight: [value_dim]",
        "{prefix}.out_proj.weight: [hidden, value_heads * value_dim]",
    )
    reference = "Qwen3NextGatedDeltaNet, Qwen3_5GatedDeltaNet"
    example = (
        "gated_delta_net: {prefix: model.layers.0.linear_attn, key_heads: 2, value_heads: 4, key_dim: 8, value_dim: 8, "
        "kernel: 4, eps: 1e-6}"
    )
    prefix: str = attr(doc="Name in front of the weights.", main=True)
    key_heads: int = attr(doc="Heads of q and k.", symbol="key_heads", gt=0)
    value_heads: int = attr(doc="Heads of v, z and the state.", symbol="value_heads", gt=0)
    key_dim: int = attr(doc="Channels of a key head.", symbol="key_dim", gt=0)
    value_dim: int = attr(doc="Channels of a value head.", symbol="value_dim", gt=0)
    kernel: int = attr(doc="Taps of the convolution, the current token's included.", symbol="conv_kernel", gt=1)
    eps: float = attr(doc="Epsilon of the gated norm.", symbol="norm_eps", ge=0)
    qk_norm_eps: float = attr(doc="Added to the sum of squares of a head of q and k.", default=1e-6, ge=0)
    activation: Function = attr(doc="Function behind the convolution.", default="silu")
    grouped: bool = attr(doc="Whether the projections lie together, key head by key head.", default=False)
    layer: int | None = attr(doc="Index of the states; the number in the prefix by default.", default=None, ge=0)

    def expand(self, b: Builder, x: Value) -> Value:
        if self.value_heads % self.key_heads:
            raise b.fail("bad-value", f"{self.value_heads} value heads cannot share {self.key_heads} key heads")
        require_tokens(b, x)
        layer = layer_index(b, self, self.prefix)
        keys, values = self.key_heads * self.key_dim, self.value_heads * self.value_dim
        mixed, z, beta, decay = self._projections(b, x)
        mixed = self._convolved(b, mixed, layer)
        q, k, v = b.emit(Split((keys, keys, values)), mixed, name="qkv")
        q = l2_norm(b, q, self.key_heads, self.qk_norm_eps, "q_norm")
        k = l2_norm(b, k, self.key_heads, self.qk_norm_eps, "k_norm")
        y = delta_scan(b, q, k, v, self._decay(b, decay), b.op(Unary("sigmoid"), beta, name="beta"),
                       self.key_heads, self.value_heads, None, layer)  # fmt: skip
        y = rms_norm(b, y, f"{self.prefix}.norm.weight", self.eps, groups=self.value_heads)
        return linear(b, gate_times(b, z, y, "silu"), f"{self.prefix}.out_proj.weight", x.shape[-1])

    def _projections(self, b: Builder, x: Value) -> list[Value]:
        """q, k and v together, z, b, a."""
        p, heads = self.prefix, self.value_heads
        keys, values = self.key_heads * self.key_dim, heads * self.value_dim
        if not self.grouped:
            rows = {"in_proj_qkv": 2 * keys + values, "in_proj_z": values, "in_proj_b": heads, "in_proj_a": heads}
            return [linear(b, x, f"{p}.{name}.weight", size) for name, size in rows.items()]
        group = heads // self.key_heads
        qkvz = b.tensor(f"{p}.in_proj_qkvz.weight", 2 * (keys + values), x.shape[-1])
        ba = b.tensor(f"{p}.in_proj_ba.weight", 2 * heads, x.shape[-1])
        v_rows = group * self.value_dim
        q, k, v, z = ungrouped(qkvz, self.key_heads, (self.key_dim, self.key_dim, v_rows, v_rows))
        beta, decay = ungrouped(ba, self.key_heads, (group, group))
        weights = {"in_proj_qkv": (*q, *k, *v), "in_proj_z": z, "in_proj_b": beta, "in_proj_a": decay}
        return [b.op(Linear(), x, b.constant(Concat(parts)), name=name) for name, parts in weights.items()]

    def _convolved(self, b: Builder, mixed: Value, layer: int) -> Value:
        channels = 2 * self.key_heads * self.key_dim + self.value_heads * self.value_dim
        weight = b.weight(f"{self.prefix}.conv1d.weight", channels, 1, self.kernel)
        state = b.past(layer, "conv_state", BATCH, channels, self.kernel - 1)
        y, after = b.emit(CausalConv(), mixed, weight, None, state, b.attention_mask(), name="conv")
        b.present(layer, conv_state=after)
        return b.op(Unary(self.activation), y, name="activation")

    def _decay(self, b: Builder, a: Value) -> Value:
        """The log of the decay, -exp(A_log) softplus(a + dt_bias)."""
        rate = b.constant(NegatedExp(b.tensor(f"{self.prefix}.A_log", self.value_heads)))
        biased = b.op(Binary("add"), a, b.weight(f"{self.prefix}.dt_bias", self.value_heads), name="a_biased")
        return b.op(Binary("mul"), b.op(Unary("softplus"), biased, name="softplus"), rate, name="decay")


def ungrouped(weight: Weight, groups: int, sizes: tuple[int, ...]) -> list[tuple[Weight, ...]]:
    """Rows that lie group by group, in each group part by part with the given sizes: the rows of each part."""
    width, start = sum(sizes), 0
    parts: list[tuple[Weight, ...]] = []
    for size in sizes:
        parts.append(tuple(Rows(weight, g * width + start, g * width + start + size) for g in range(groups)))
        start += size
    return parts
