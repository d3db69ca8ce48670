from __future__ import annotations

from flowc.frontend.builder import Builder
from flowc.frontend.stage import Stage, attr
from flowc.ir.core.linear import Linear
from flowc.ir.graph import Value
from flowc.ir.weights.expressions import Concat
from flowc.stages.blocks.decoder import (
    AttentionFacts,
    QkNorm,
    cached_attention,
    gate_times,
    keys_values,
    linear,
    rms_norm,
    rotate,
)
from flowc.stages.blocks.tokens import layer_index
from flowc.stages.recurrent import ungrouped


class GatedAttention(Stage, name="gated_attention"):
    """Causal self-attention with its cache and an output gate, on normed input: o_proj(attention * sigmoid(gate)).

    q_proj holds for each head its query rows and then its gate rows. q and k are normalised per head, before the rope.
    """

    cached = True
    reads = ("active", "rope", "positions", "attention_mask", "cache")
    writes = ("active", "cache")
    weights = (
        "{prefix}.q_proj.weight: [heads * 2 * head_dim, hidden], and its bias with `attention_bias`",
        "{prefix}.{k,v}_proj.weight: [kv_heads * head_dim, hidden], and its bias with `attention_bias`",
        "{prefix}.{q,k}_norm.weight: [head_dim]",
        "{prefix}.o_proj.weight: [hidden, heads * head_dim], and its bias with `attention_bias`",
    )
    reference = "Qwen3NextAttention, Qwen3_5Attention"
    example = "gated_attention: {prefix: model.layers.0.self_attn, heads: 4, kv_heads: 2, head_dim: 16, eps: 1e-6, rope: null}"
    prefix: str = attr(doc="Name in front of the weights.", main=True)
    heads: int = attr(doc="Query heads.", symbol="heads", gt=0)
    kv_heads: int = attr(doc="Key and value heads.", symbol="kv_heads", gt=0)
    head_dim: int = attr(doc="Channels of a head.", symbol="head_dim", gt=0)
    eps: float = attr(doc="Epsilon of the norm over each head of q and k.", symbol="norm_eps", ge=0)
    norm_offset: float = attr(doc="Added to that norm's gain.", default=1.0)
    attention_bias: bool = attr(doc="Whether q, k, v and o have biases.", default=False)
    scale: float | None = attr(doc="Factor of the scores; 1 / sqrt(head_dim) by default.", default=None, gt=0)
    rope: str | None = attr(doc="Name of the rope; null for none.", default="rope")
    layer: int | None = attr(doc="Index of the cache; the number in the prefix by default.", default=None, ge=0)

    def expand(self, b: Builder, x: Value) -> Value:
        p, layer = self.prefix, layer_index(b, self, self.prefix)
        facts = AttentionFacts(self.heads, self.kv_heads, self.head_dim, self.scale, rope=self.rope)
        b.past_keys(layer, facts.kv_heads, facts.head_dim, facts.value_dim)
        norm = QkNorm(f"{p}.q_norm.weight", f"{p}.k_norm.weight", self.eps, self.norm_offset)
        q, gate = self._query_and_gate(b, x)
        k, v = keys_values(b, x, p, facts, bias=self.attention_bias, qk_norm=norm)
        q = rms_norm(b, q, norm.q, norm.eps, offset=norm.offset, groups=facts.heads)
        y = cached_attention(b, rotate(b, q, facts.heads, facts, "q_rope"), k, v, facts, layer)
        return linear(b, gate_times(b, gate, y, "sigmoid"), f"{p}.o_proj.weight", x.shape[-1], bias=self.attention_bias)

    def _query_and_gate(self, b: Builder, x: Value) -> list[Value]:
        """Two projections from the rows of one tensor, sorted when the weights are written."""
        rows, name = 2 * self.heads * self.head_dim, f"{self.prefix}.q_proj"
        sizes = (self.head_dim, self.head_dim)
        weights = ungrouped(b.tensor(f"{name}.weight", rows, x.shape[-1]), self.heads, sizes)
        biases = ungrouped(b.tensor(f"{name}.bias", rows), self.heads, sizes) if self.attention_bias else (None, None)
        results: list[Value] = []
        for label, weight, bias in zip(("q_proj", "gate_proj"), weights, biases, strict=True):
            bias_rows = b.constant(Concat(bias)) if bias is not None else None
            results.append(b.op(Linear(), x, b.constant(Concat(weight)), bias_rows, name=label))
        return results
