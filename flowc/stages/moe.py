from __future__ import annotations

from flowc.frontend.builder import Builder
from flowc.frontend.stage import Stage, attr
from flowc.ir.core.elementwise import Function
from flowc.ir.graph import Value
from flowc.stages.blocks.decoder import QkNorm
from flowc.stages.blocks.experts import Mixture, mixture_with_shared
from flowc.stages.decoder_layer import ATTENTION_WEIGHTS, QK_NORM_WEIGHTS, DecoderLayer

_EXPERT_WEIGHTS = (
    "{prefix}.gate.weight: [experts, hidden]",
    "{prefix}.experts.*.{gate,up}_proj.weight: [moe_ffn, hidden] without `fused`",
    "{prefix}.experts.*.down_proj.weight: [hidden, moe_ffn] without `fused`",
    "{prefix}.experts.gate_up_proj: [experts, 2 * moe_ffn, hidden] with `fused`",
    "{prefix}.experts.down_proj: [experts, hidden, moe_ffn] with `fused`",
)


class _WithExperts(Stage):
    """Fields of a mixture of experts."""

    experts: int = attr(doc="How many experts there are.", symbol="experts", gt=0)
    top: int = attr(doc="How many of them a token takes.", symbol="experts_per_token", gt=0)
    moe_ffn: int = attr(doc="Width of an expert.", symbol="moe_ffn", gt=0)
    renormalise: bool = attr(doc="Whether the chosen experts' weights are divided by their sum.")
    fused: bool = attr(doc="Whether the checkpoint stacks the experts in two tensors.", default=False)
    activation: Function = attr(doc="Function of the gates.", default="silu")

    def mixture(self) -> Mixture:
        """The mixture's facts."""
        return Mixture(self.experts, self.top, self.moe_ffn, self.renormalise, self.activation, self.fused)


class Moe(_WithExperts, name="moe"):
    """Routes each token to its `top` experts: sum of softmax(router x)_e * down_e(silu(gate_e x) * up_e x).

    The softmax is over all experts. With `shared_ffn` one more expert serves every token, times the sigmoid of a gate.
    """

    weights = (
        *_EXPERT_WEIGHTS,
        "{prefix}.shared_expert.{gate,up}_proj.weight: [shared_ffn, hidden] with `shared_ffn`",
        "{prefix}.shared_expert.down_proj.weight: [hidden, shared_ffn] with `shared_ffn`",
        "{prefix}.shared_expert_gate.weight: [1, hidden] with `shared_ffn` and `shared_gate`",
    )
    reference = "Qwen3MoeSparseMoeBlock, Qwen3NextSparseMoeBlock"
    example = "moe: {prefix: model.layers.0.mlp, experts: 8, top: 2, moe_ffn: 32, renormalise: true}"
    prefix: str = attr(doc="Name in front of the weights.", main=True)
    shared_ffn: int | None = attr(doc="Width of the shared expert; none by default.", default=None, gt=0)
    shared_gate: bool = attr(doc="Whether the shared expert has a gate.", default=True)

    def expand(self, b: Builder, x: Value) -> Value:
        return mixture_with_shared(b, x, self.prefix, self.mixture(), self.shared_ffn, gated=self.shared_gate)


class Qwen3MoeDecoder(DecoderLayer, _WithExperts, name="qwen3_moe_decoder"):
    """A whole Qwen3-MoE layer with its cache: as `qwen3_decoder`, with a mixture of experts for its MLP."""

    weights = (
        *ATTENTION_WEIGHTS,
        *QK_NORM_WEIGHTS,
        *(w.replace("{prefix}", "{prefix}.mlp") for w in _EXPERT_WEIGHTS),
    )
    reference = "Qwen3MoeDecoderLayer"
    example = (
        "qwen3_moe_decoder: {prefix: model.layers.0, heads: 4, kv_heads: 2, head_dim: 16, eps: 1e-6, rope: null, "
        "experts: 8, top: 2, moe_ffn: 32, renormalise: true}"
    )

    def qk_norm_facts(self) -> QkNorm | None:
        attention = f"{self.prefix}.self_attn"
        return QkNorm(f"{attention}.q_norm.weight", f"{attention}.k_norm.weight", self.eps)

    def mlp(self, b: Builder, h: Value) -> Value:
        return mixture_with_shared(b, h, f"{self.prefix}.mlp", self.mixture(), None)
