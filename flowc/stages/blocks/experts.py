"""What mixture-of-experts stages are made of: the router, the experts' weights from the checkpoint, a shared expert."""

from __future__ import annotations

from dataclasses import dataclass

from flowc.frontend.builder import Builder
from flowc.ir.core.elementwise import Binary, Function, Unary
from flowc.ir.core.experts import Experts
from flowc.ir.graph import Value
from flowc.ir.weights.expressions import Concat, Reshape, Transpose, Weight
from flowc.stages.blocks.decoder import add, gated_mlp, linear


@dataclass(frozen=True, slots=True)
class Mixture:
    """What decides a mixture of experts, apart from its weights."""

    experts: int
    top: int
    ffn: int
    """Width of one expert."""
    renormalise: bool
    activation: Function = "silu"
    fused: bool = False
    """Whether the experts are stacked in two tensors of the checkpoint, else they are stored one by one."""


def mixture(b: Builder, x: Value, prefix: str, facts: Mixture) -> Value:
    """The routed experts: router `<prefix>.gate`, experts below `<prefix>.experts` (HF `*SparseMoeBlock`)."""
    scores = linear(b, x, f"{prefix}.gate.weight", facts.experts, name="router")
    hidden = x.shape[-1]
    if not isinstance(hidden, int):
        raise b.fail("unknown-size", "the experts' input has no known width")
    stack = _stacked if facts.fused else _one_by_one
    gate_up, down = stack(b, f"{prefix}.experts", facts, hidden)
    op = Experts(facts.top, facts.renormalise, facts.activation)
    return b.op(op, x, scores, b.constant(gate_up), b.constant(down), name="experts")


def _one_by_one(b: Builder, prefix: str, facts: Mixture, hidden: int) -> tuple[Weight, Weight]:
    """`<prefix>.E.{gate,up,down}_proj.weight`, joined; the rows of gate and up alternate."""

    def joined(part: str, rows: int, columns: int) -> Weight:
        names = (f"{prefix}.{expert}.{part}.weight" for expert in range(facts.experts))
        return Concat(tuple(b.tensor(name, rows, columns) for name in names))

    both = Concat((joined("gate_proj", facts.ffn, hidden), joined("up_proj", facts.ffn, hidden)))
    pairs = Transpose(Reshape(both, (2, facts.experts * facts.ffn, hidden)), (1, 0, 2))
    down = joined("down_proj", hidden, facts.ffn)
    return (
        Reshape(pairs, (facts.experts, 2 * facts.ffn, hidden)),
        Reshape(down, (facts.experts, hidden, facts.ffn)),
    )


def _stacked(b: Builder, prefix: str, facts: Mixture, hidden: int) -> tuple[Weight, Weight]:
    """`<prefix>.gate_up_proj` [experts, 2 * ffn, hidden], gate's rows above up's, and `<prefix>.down_proj`."""
    whole = b.tensor(f"{prefix}.gate_up_proj", facts.experts, 2 * facts.ffn, hidden)
    pairs = Transpose(Reshape(whole, (facts.experts, 2, facts.ffn, hidden)), (0, 2, 1, 3))
    down = b.tensor(f"{prefix}.down_proj", facts.experts, hidden, facts.ffn)
    return Reshape(pairs, (facts.experts, 2 * facts.ffn, hidden)), down


def shared_expert(
    b: Builder, x: Value, prefix: str, ffn: int | None, activation: Function = "silu", *, gated: bool = True
) -> Value:
    """The expert that every token takes: `<prefix>.shared_expert`, times sigmoid(`<prefix>.shared_expert_gate` x)."""
    y = gated_mlp(b, x, f"{prefix}.shared_expert", activation, ffn)
    if not gated:
        return y
    gate = linear(b, x, f"{prefix}.shared_expert_gate.weight", 1)
    return b.op(Binary("mul"), y, b.op(Unary("sigmoid"), gate, name="shared_gate"), name="shared")


def mixture_with_shared(
    b: Builder, x: Value, prefix: str, facts: Mixture, shared_ffn: int | None, *, gated: bool = True
) -> Value:
    """The routed experts and, where `shared_ffn` names a width, the shared one (HF `Qwen3NextSparseMoeBlock`)."""
    y = mixture(b, x, prefix, facts)
    if shared_ffn is None:
        return y
    return add(b, y, shared_expert(b, x, prefix, shared_ffn, facts.activation, gated=gated), name="all_experts")
