"""What encoder layers are made of: projections that may be packed, LayerNorm, the MLPs, attention over all tokens."""

from __future__ import annotations

from dataclasses import dataclass

from flowc.frontend.builder import Builder
from flowc.ir.core.attention import Attention
from flowc.ir.core.elementwise import Function, Unary
from flowc.ir.core.linear import Linear
from flowc.ir.core.norm import Norm
from flowc.ir.graph import Value
from flowc.ir.weights.expressions import Rows
from flowc.stages.blocks.decoder import AttentionFacts, bias_name, gate_times, linear, rotate
from flowc.stages.blocks.tokens import require_whole


@dataclass(frozen=True, slots=True)
class Projection:
    """A projection: a weight of its own, or part `index` of `count` equal parts of the rows of a packed one."""

    weight: str
    index: int = 0
    count: int = 1
    bias: bool | None = None
    """Whether it has a bias; None for what its neighbours have."""


def packed_rows(weight: str, count: int) -> tuple[Projection, ...]:
    """The projections that a packed weight holds one above the other."""
    return tuple(Projection(weight, i, count) for i in range(count))


def project(b: Builder, x: Value, part: Projection, out: int | None, *, bias: bool, name: str) -> Value:
    """`x @ W.T (+ b)` with a projection of `out` channels; its bias is the sibling `.bias`."""
    bias = bias if part.bias is None else part.bias
    if part.count == 1:
        return linear(b, x, part.weight, out, bias=bias, name=name)
    rows = out * part.count if out is not None else None
    packed = b.tensor(part.weight, rows, x.shape[-1])
    size, left_over = divmod(packed.shape[0], part.count)
    if left_over:
        raise b.fail("bad-shape", f"the {packed.shape[0]} rows of '{part.weight}' are not {part.count} equal parts")
    start = part.index * size
    w = b.constant(Rows(packed, start, start + size))
    if not bias:
        return b.op(Linear(), x, w, name=name)
    packed_bias = b.tensor(bias_name(part.weight), packed.shape[0])
    return b.op(Linear(), x, w, b.constant(Rows(packed_bias, start, start + size)), name=name)


def layer_norm(b: Builder, x: Value, weight: str, eps: float, *, bias: bool = True, at: str = "") -> Value:
    """LayerNorm with the gain `weight` and its sibling `.bias` (Ba et al. 2016; torch.nn.LayerNorm).

    Old checkpoints call them `.gamma` and `.beta`; where the file has those, they are taken, as HuggingFace does.
    """
    stem = weight.removesuffix(".weight")
    gain, shift = weight, f"{stem}.bias"
    if weight.endswith(".weight") and not b.has_weight(weight) and b.has_weight(f"{stem}.gamma"):
        gain, shift = f"{stem}.gamma", f"{stem}.beta"
    width = x.shape[-1]
    w = b.weight(gain, width, at=at)
    shift_vector = b.weight(shift, width, at=at) if bias else None
    return b.op(Norm("layer", eps), x, w, shift_vector, name=stem.rsplit(".", 1)[-1])


def plain_mlp(
    b: Builder, x: Value, up: str, down: str, activation: Function, ffn: int | None, *, bias: bool = True
) -> Value:
    """down(activation(up x)) (HF `BertIntermediate` and the dense of `BertOutput`, `Dinov2MLP`)."""
    h = linear(b, x, up, ffn, bias=bias, name="up")
    h = b.op(Unary(activation), h, name="activation")
    return linear(b, h, down, x.shape[-1], bias=bias, name="down")


def gated_parts(
    b: Builder,
    x: Value,
    gate: Projection,
    up: Projection,
    down: str,
    activation: Function,
    ffn: int | None,
    *,
    bias: bool = False,
    down_bias: bool = False,
) -> Value:
    """down(activation(gate x) * up x) with projections that may be packed (Shazeer 2020; HF `ModernBertMLP`)."""
    g = project(b, x, gate, ffn, bias=bias, name="gate")
    u = project(b, x, up, ffn, bias=bias, name="up")
    return linear(b, gate_times(b, g, u, activation), down, x.shape[-1], bias=down_bias, name="down")


@dataclass(frozen=True, slots=True)
class Projections:
    """Where an attention's weights are, and which of them have biases."""

    q: Projection
    k: Projection
    v: Projection
    out: str
    bias: bool = True
    out_bias: bool = True


def packed_projections(weight: str, out: str, *, bias: bool, out_bias: bool) -> Projections:
    """Projections of a weight whose rows are those of q, k and v."""
    q, k, v = packed_rows(weight, 3)
    return Projections(q, k, v, out, bias, out_bias)


def encoder_attention(
    b: Builder, x: Value, names: Projections, facts: AttentionFacts, mask: Value | None, bias: Value | None = None
) -> Value:
    """Attention of every token to every token that `mask` keeps, with its output projection.

    x [batch, sequence, hidden]; mask int64 [batch, sequence]; bias float [1, heads, sequence, sequence]
    joins the scores. `facts.visibility` says how far a token sees on both sides, `facts.rope` turns q and k.
    """
    width, values = facts.heads * facts.head_dim, facts.heads * facts.value_dim
    q = project(b, x, names.q, width, bias=names.bias, name="q")
    k = project(b, x, names.k, width, bias=names.bias, name="k")
    v = project(b, x, names.v, values, bias=names.bias, name="v")
    q = rotate(b, q, facts.heads, facts, "q_rope")
    k = rotate(b, k, facts.heads, facts, "k_rope")
    op = Attention(facts.heads, facts.heads, facts.factor, facts.visibility, facts.softcap)
    y = b.op(op, q, k, v, None, None, mask, bias, name="attention")
    return linear(b, y, names.out, x.shape[-1], bias=names.out_bias, name="out")


def token_mask(b: Builder, x: Value) -> Value | None:
    """The mask that encoder stages use on x: what an `attn_mask` stage made, else the graph's attention_mask.

    None in a flow that starts from images: none of their tokens is padding.
    """
    require_whole(b)
    found = b.state.token_mask
    if found is None:
        if b.tokens().type.rank > 3 or b.options.assume == "no-padding":
            return None
        found = b.attention_mask()
    if found is not None and x.shape[1] not in (found.shape[1], b.tokens().shape[1]):
        hint = "`attn_mask` behind the stage that changed the tokens makes a mask of ones for them"
        raise b.fail("bad-shape", f"the mask {found.type} is not that of the tokens of {x.type}", hint=hint)
    return found
