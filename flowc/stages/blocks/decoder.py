"""What several stage kinds are made of: the one attention, the one gated MLP, the one projection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flowc.frontend.builder import Builder
from flowc.ir.core.attention import Attention
from flowc.ir.core.elementwise import Binary, Function, Unary
from flowc.ir.core.linear import Linear
from flowc.ir.core.norm import Norm
from flowc.ir.core.rope import Rope
from flowc.ir.graph import Value
from flowc.ir.types import Dim
from flowc.ir.visibility import CAUSAL, Visibility
from flowc.ir.weights.expressions import Rows
from flowc.stages.blocks.tokens import require_tokens, rope_angles


@dataclass(frozen=True, slots=True)
class AttentionFacts:
    """What decides an attention, apart from its weights."""

    heads: int
    kv_heads: int
    head_dim: int
    scale: float | None = None
    """1 / sqrt(head_dim) when None."""
    softcap: float | None = None
    visibility: Visibility = CAUSAL
    rope: str | None = "rope"
    """Name of the rope, None for no position encoding."""
    interleaved: bool = False
    v_head_dim: int | None = None

    @property
    def value_dim(self) -> int:
        """Width of a value head."""
        return self.v_head_dim or self.head_dim

    @property
    def factor(self) -> float:
        """What scores are multiplied by."""
        return self.head_dim**-0.5 if self.scale is None else self.scale


def linear(
    b: Builder,
    x: Value,
    weight: str,
    out: Dim | None = None,
    *,
    bias: str | bool = False,
    at: str = "",
    name: str = "",
) -> Value:
    """`x @ W.T (+ b)` with the tensor `weight` [out, in]; `bias` True takes the sibling `….bias`."""
    w = b.weight(weight, out, x.shape[-1], at=at)
    bias_vector = b.weight(bias if isinstance(bias, str) else bias_name(weight), w.shape[0], at=at) if bias else None
    return b.op(Linear(), x, w, bias_vector, name=name or _short(weight))


def linear_parts(
    b: Builder, x: Value, weight: str, sizes: Sequence[int], names: Sequence[str], *, bias: bool = False
) -> list[Value]:
    """Projections whose weights are consecutive rows of one tensor [sum of sizes, in], read where they lie."""
    whole = b.tensor(weight, sum(sizes), x.shape[-1])
    biases = b.tensor(bias_name(weight), sum(sizes)) if bias else None
    found, start = list[Value](), 0
    for size, name in zip(sizes, names, strict=True):
        rows = b.constant(Rows(whole, start, start + size))
        part_bias = b.constant(Rows(biases, start, start + size)) if biases is not None else None
        found.append(b.op(Linear(), x, rows, part_bias, name=name))
        start += size
    return found


def bias_name(weight: str) -> str:
    """Name of the bias beside a weight: `.bias` for `.weight`, `_bias` for `_weight`."""
    stem = weight.removesuffix("weight")
    return f"{stem}bias" if stem.endswith((".", "_")) else f"{weight}.bias"


def _short(weight: str) -> str:
    parts = [p for p in weight.split(".") if p not in ("weight", "bias")]
    return parts[-1] if parts else "linear"


def rms_norm(
    b: Builder,
    x: Value,
    weight: str,
    eps: float,
    *,
    offset: float = 0.0,
    groups: int = 1,
    at: str = "",
    name: str = "",
) -> Value:
    """RMSNorm with the gain `weight`; `groups` heads are normalised one by one."""
    width = x.shape[-1]
    size = width // groups if isinstance(width, int) else width
    gain = b.weight(weight, size, at=at)
    return b.op(Norm("rms", eps, offset, groups), x, gain, name=name or _short(weight))


def rotate(b: Builder, x: Value, heads: int, facts: AttentionFacts, name: str) -> Value:
    """Rotary embedding by the named rope, or x itself where there is none."""
    if facts.rope is None:
        return x
    cos, sin = rope_angles(b, facts.rope)
    rope = b.state.ropes[facts.rope]
    if rope.head_dim not in (None, facts.head_dim):
        message = f"the rope '{facts.rope}' is for heads of {rope.head_dim} channels, these have {facts.head_dim}"
        raise b.fail("bad-shape", message, b.place("rope"), "`rotary_dim` says how many channels of a head turn")
    if rope.facts is not None and x.shape[1] != cos.shape[1]:
        raise b.fail("bad-shape", f"the rope '{facts.rope}' turns the flow's own tokens, not those of {x.type}")
    interleaved = facts.interleaved or rope.interleaved
    return b.op(Rope(heads, interleaved), x, cos, sin, name=name)


def cached_attention(b: Builder, q: Value, k: Value, v: Value, facts: AttentionFacts, layer: int) -> Value:
    """Causal attention whose keys and values travel in the layer's cache. q and k are already rotated.

    q [batch, sequence, heads * head_dim] -> [batch, sequence, heads * value_dim].
    """
    require_tokens(b, k)
    past_key, past_value = b.past_keys(layer, facts.kv_heads, facts.head_dim, facts.value_dim)
    op = Attention(facts.heads, facts.kv_heads, facts.factor, facts.visibility, facts.softcap, cache=True)
    y, key, value = b.emit(op, q, k, v, past_key, past_value, b.attention_mask(), name="attention")
    b.present(layer, key=key, value=value)
    return y


@dataclass(frozen=True, slots=True)
class QkNorm:
    """RMSNorm over each head of q and k before the rope (Qwen3, Gemma 3)."""

    q: str
    k: str
    eps: float
    offset: float = 0.0


def decoder_attention(
    b: Builder,
    x: Value,
    prefix: str,
    facts: AttentionFacts,
    layer: int,
    *,
    qkv_bias: bool = False,
    qk_norm: QkNorm | None = None,
    packed: bool = False,
) -> Value:
    """Projections `<prefix>.{q,k,v}_proj`, q/k norm, rope, cached attention: all of HF's attention but `o_proj`.

    `packed`: the projections are the rows of `<prefix>.qkv_proj` (HF `Phi3Attention`).
    """
    b.past_keys(layer, facts.kv_heads, facts.head_dim, facts.value_dim)
    if packed:
        sizes = (facts.heads * facts.head_dim, facts.kv_heads * facts.head_dim, facts.kv_heads * facts.value_dim)
        q, k, v = linear_parts(b, x, f"{prefix}.qkv_proj.weight", sizes, ("q_proj", "k_proj", "v_proj"), bias=qkv_bias)
        k = rotate(b, k, facts.kv_heads, facts, "k_rope")
    else:
        q = linear(b, x, f"{prefix}.q_proj.weight", facts.heads * facts.head_dim, bias=qkv_bias)
        k, v = keys_values(b, x, prefix, facts, bias=qkv_bias, qk_norm=qk_norm)
    if qk_norm is not None:
        q = rms_norm(b, q, qk_norm.q, qk_norm.eps, offset=qk_norm.offset, groups=facts.heads)
    q = rotate(b, q, facts.heads, facts, "q_rope")
    return cached_attention(b, q, k, v, facts, layer)


def keys_values(
    b: Builder, x: Value, prefix: str, facts: AttentionFacts, *, bias: bool = False, qk_norm: QkNorm | None = None
) -> tuple[Value, Value]:
    """Rotated keys and values of a layer, as the cache keeps them (before the head axis is split)."""
    require_tokens(b, x)
    k = linear(b, x, f"{prefix}.k_proj.weight", facts.kv_heads * facts.head_dim, bias=bias)
    v = linear(b, x, f"{prefix}.v_proj.weight", facts.kv_heads * facts.value_dim, bias=bias)
    if qk_norm is not None:
        k = rms_norm(b, k, qk_norm.k, qk_norm.eps, offset=qk_norm.offset, groups=facts.kv_heads)
    return rotate(b, k, facts.kv_heads, facts, "k_rope"), v


def gated_mlp(
    b: Builder,
    x: Value,
    prefix: str,
    activation: Function,
    ffn: int | None,
    *,
    bias: bool = False,
    packed: bool = False,
) -> Value:
    """down(activation(gate x) * up x) with `<prefix>.{gate,up,down}_proj` (Shazeer 2020; HF `LlamaMLP`, `GemmaMLP`).

    `packed`: gate and up are the rows of `<prefix>.gate_up_proj` (HF `Phi3MLP`).
    """
    if packed:
        fused = f"{prefix}.gate_up_proj.weight"
        rows = b.tensor(fused, 2 * ffn if ffn else None, x.shape[-1]).shape[0]
        gate, up = linear_parts(b, x, fused, (rows // 2, rows // 2), ("gate_proj", "up_proj"), bias=bias)
    else:
        gate = linear(b, x, f"{prefix}.gate_proj.weight", ffn, bias=bias)
        up = linear(b, x, f"{prefix}.up_proj.weight", gate.shape[-1], bias=bias)
    h = gate_times(b, gate, up, activation)
    return linear(b, h, f"{prefix}.down_proj.weight", x.shape[-1], bias=bias)


def gate_times(b: Builder, gate: Value, up: Value, activation: Function) -> Value:
    """activation(gate) * up."""
    return b.op(Binary("mul"), b.op(Unary(activation), gate, name="activation"), up, name="gated")


def add(b: Builder, x: Value, y: Value, name: str = "residual") -> Value:
    """A residual sum."""
    return b.op(Binary("add"), x, y, name=name)
