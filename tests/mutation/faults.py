"""Compiler faults to plant: each changes a graph's meaning between expansion and lowering, as a bug would.

A fault is planted in every graph of a tiny model, the model is built, and `flowc verify` has to see it from the files.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from flowc.ir.core.attention import Attention
from flowc.ir.core.elementwise import Binary, Scale, Softcap, Unary
from flowc.ir.core.experts import Experts
from flowc.ir.core.linear import Linear
from flowc.ir.core.norm import Norm
from flowc.ir.core.pool import L2Normalize, Pool
from flowc.ir.core.positions import Positions, TakeLast
from flowc.ir.core.recurrent import CausalConv, DeltaScan
from flowc.ir.core.relative_bias import RelativeBias
from flowc.ir.core.rope import Rope, RopeAngles
from flowc.ir.graph import Graph, Node, Output, Rewriter, Value, constant, rewrite
from flowc.ir.op import Op
from flowc.ir.rope import RopeFacts
from flowc.ir.visibility import Visibility
from flowc.ir.weights.expressions import Affine, Concat, Reshape, Rows, Transpose, Weight

Plant = Callable[[Graph], Graph]
Change = Callable[[Any], Any]
Act = Callable[[Node, Rewriter], Sequence[Value]]


@dataclass(frozen=True, slots=True)
class Fault:
    """A planted fault: what it is, in which example, and how."""

    name: str
    example: str
    plant: Plant


def times(factor: float) -> Change:
    """A number times another, of the same type."""
    return lambda value: type(value)(value * factor)


def plus(term: int) -> Change:
    """A whole number plus another; None stays."""
    return lambda value: None if value is None else value + term


def seen(**facts: Any) -> Change:
    """A visibility with other facts; a value may be a function of the old one."""

    def change(old: Visibility) -> Visibility:
        return replace(old, **{k: v(getattr(old, k)) if callable(v) else v for k, v in facts.items()})

    return change


def opposite(value: bool) -> bool:
    """True for false."""
    return not value


def at_nodes(
    chosen: Callable[[Node], bool], nth: int | None, act: Callable[[Node, Rewriter], Sequence[Value]]
) -> Plant:
    """Acts on the nth chosen node (on all when None)."""

    def plant(graph: Graph) -> Graph:
        count = -1

        def rule(node: Node, r: Rewriter) -> Sequence[Value] | None:
            nonlocal count
            if not chosen(node):
                return None
            count += 1
            return act(node, r) if nth in (None, count) else None

        return rewrite(graph, rule)

    return plant


def changed(op: type[Op], nth: int | None = None, **attributes: Any) -> Plant:
    """Other attributes of operators of a kind; a value may be a function of the old one."""

    def act(node: Node, r: Rewriter) -> Sequence[Value]:
        values = {k: v(getattr(node.op, k)) if callable(v) else v for k, v in attributes.items()}
        return r.emit(replace(node.op, **values), node.inputs, node, "planted")

    return at_nodes(lambda node: isinstance(node.op, op), nth, act)


def without(op: type[Op], operand: str, nth: int | None = None) -> Plant:
    """An operand of operators of a kind left out, where they have it."""

    def act(node: Node, r: Rewriter) -> Sequence[Value]:
        return r.emit(node.op, node.with_operands(**{operand: None}).inputs, node, "planted")

    return at_nodes(lambda node: isinstance(node.op, op) and node.input(operand) is not None, nth, act)


def skipped(op: type[Op], nth: int = 0, where: Callable[[Node], bool] = lambda _: True) -> Plant:
    """An operator left out: readers get its first operand."""

    def act(node: Node, r: Rewriter) -> Sequence[Value]:
        source = node.inputs[0]
        assert source is not None
        return [source]

    return at_nodes(lambda node: isinstance(node.op, op) and where(node), nth, act)


def sine_for_cosine(graph: Graph) -> Graph:
    """Every rope with its two tables exchanged."""

    def act(node: Node, r: Rewriter) -> Sequence[Value]:
        return r.emit(node.op, node.with_operands(cos=node.need("sin"), sin=node.need("cos")).inputs, node, "planted")

    return at_nodes(lambda node: isinstance(node.op, Rope), None, act)(graph)


def rope_base(theta: Change) -> Plant:
    """Every rope with another base."""

    def facts(old: RopeFacts) -> RopeFacts:
        return replace(old, theta=float(theta(old.theta)))

    return changed(RopeAngles, facts=facts)


def with_operands(graph: Graph, other: Callable[[Value], Value]) -> Graph:
    """The graph with other operands."""

    def operands(node: Node) -> tuple[Value | None, ...]:
        return tuple(v if v is None else other(v) for v in node.inputs)

    return replace(graph, nodes=tuple(replace(n, inputs=operands(n)) for n in graph.nodes))


def weight_changed(name: str, change: Callable[[Weight], Weight]) -> Plant:
    """Another expression for the weights whose name holds this."""

    def other(value: Value) -> Value:
        if value.weight is None or name not in value.weight.key:
            return value
        return constant(change(value.weight))

    return lambda graph: with_operands(graph, other)


def exchanged(a: str, b: str) -> Plant:
    """Two weights in each other's place, by parts of their names."""

    def plant(graph: Graph) -> Graph:
        first, second = (next(w for w in graph.weights() if name in w.key) for name in (a, b))
        swap = {first.key: second, second.key: first}

        def other(value: Value) -> Value:
            found = swap.get(value.weight.key) if value.weight is not None else None
            return value if found is None else constant(found)

        return with_operands(graph, other)

    return plant


def outputs_exchanged(a: str, b: str) -> Plant:
    """Two graph outputs under each other's names, where the graph has both."""

    def plant(graph: Graph) -> Graph:
        names, values = {a: b, b: a}, {o.name: o.value for o in graph.outputs}
        if not set(names) <= set(values):
            return graph
        return replace(graph, outputs=tuple(Output(o.name, values[names.get(o.name, o.name)]) for o in graph.outputs))

    return plant


def inputs_exchanged(a: str, b: str) -> Plant:
    """Two graph inputs read in each other's place, where the graph has both."""

    def plant(graph: Graph) -> Graph:
        values = {v.name: v for v in graph.inputs}
        if not {a, b} <= set(values):
            return graph
        swap = {values[a]: values[b], values[b]: values[a]}
        return with_operands(graph, lambda v: swap.get(v, v))

    return plant


def is_add(node: Node) -> bool:
    """Whether a node is a sum."""
    return isinstance(node.op, Binary) and node.op.function == "add"


def is_product(node: Node) -> bool:
    """Whether a node is a product."""
    return isinstance(node.op, Binary) and node.op.function == "mul"


def per_head(node: Node) -> bool:
    """Whether a node normalises heads one by one."""
    return isinstance(node.op, Norm) and node.op.groups > 1


def first_rows_turned(weight: Weight) -> Weight:
    """The first two rows of a weight exchanged."""
    return Concat((Rows(weight, 1, 2), Rows(weight, 0, 1), Rows(weight, 2, weight.shape[0])))


def patches_turned(weight: Weight) -> Weight:
    """A patch projection whose kernel has rows for columns."""
    assert isinstance(weight, Reshape)
    return Reshape(Transpose(weight.of, (0, 1, 3, 2)), weight.sizes)


ATTENTION, MLP = "layers.0.self_attn", "layers.0.mlp"

_LLAMA: dict[str, Plant] = {
    "attention scale off by 2 %": changed(Attention, scale=times(1.02)),
    "causality dropped in one layer": changed(Attention, 0, visibility=seen(causal=False)),
    "padding mask ignored in one layer": without(Attention, "key_mask", 0),
    "padding mask ignored in the last layer": without(Attention, "key_mask", 1),
    "pasts of two layers exchanged": inputs_exchanged("past_key_values.0.key", "past_key_values.1.key"),
    "cached keys and values exchanged": outputs_exchanged("present.0.key", "present.0.value"),
    "caches of two layers exchanged": outputs_exchanged("present.0.key", "present.1.key"),
    "gate and up exchanged": exchanged(f"{MLP}.gate_proj", f"{MLP}.up_proj"),
    "norms of a layer exchanged": exchanged("layers.0.input_layernorm", "layers.0.post_attention_layernorm"),
    "a layer's weights taken from the next": exchanged(f"{MLP}.down_proj", "layers.1.mlp.down_proj"),
    "a weight 0.1 % too large": weight_changed(f"{ATTENTION}.o_proj", lambda w: Affine(w, 1.001)),
    "epsilon of one norm 1e-2": changed(Norm, 0, eps=1e-2),
    "LayerNorm for RMSNorm": changed(Norm, 2, kind="layer"),
    "final norm skipped": skipped(Norm, 4),
    "rope base ten times too large": rope_base(times(10)),
    "rope pairs neighbours": changed(Rope, 0, interleaved=True),
    "rope of q skipped": skipped(Rope, 1),
    "sine and cosine exchanged": sine_for_cosine,
    "positions count padding": without(Positions, "mask"),
    "residual of one layer dropped": skipped(Binary, 1, is_add),
    "gelu for silu": changed(Unary, 0, function="gelu"),
    "the last column for the last token": without(TakeLast, "mask"),
}
_OTHERS: dict[str, tuple[str, Plant]] = {
    "attention scale of one layer forgotten": ("qwen3", changed(Attention, 1, scale=1.0)),
    "rows of a key head exchanged": ("qwen3", weight_changed(f"{ATTENTION}.k_proj", first_rows_turned)),
    "norm of k skipped": ("qwen3", skipped(Norm, 0, per_head)),
    "bias of one projection dropped": ("qwen2", without(Linear, "bias", 0)),
    "biases of k and v exchanged": ("qwen2", exchanged(f"{ATTENTION}.k_proj.bias", f"{ATTENTION}.v_proj.bias")),
    "window one token longer": ("mistral", changed(Attention, visibility=seen(left=plus(1)))),
    "window one token shorter": ("mistral", changed(Attention, visibility=seen(left=plus(-1)))),
    "window dropped": ("mistral", changed(Attention, visibility=seen(left=None))),
    "weights of k and v exchanged": ("gemma", exchanged(f"{ATTENTION}.k_proj", f"{ATTENTION}.v_proj")),
    "1 + w of one norm forgotten": ("gemma", changed(Norm, 0, offset=0.0)),
    "erf gelu for tanh gelu": ("gemma", changed(Unary, 0, function="gelu")),
    "scale of the embedding forgotten": ("gemma", skipped(Scale)),
    "scale of the embedding rounded": ("gemma", changed(Scale, 0, factor=times(1.005))),
    "softcap of the scores dropped": ("gemma2", changed(Attention, softcap=None)),
    "softcap of the scores 30 % too small": ("gemma2", changed(Attention, softcap=times(0.7))),
    "softcap of the logits dropped": ("gemma2", skipped(Softcap)),
    "norm after the attention skipped": ("gemma2", skipped(Norm, 1)),
    "window of one layer on all": ("gemma3", changed(Attention, visibility=seen(left=7))),
    "epsilon of all norms 1e-3": ("gemma3", changed(Norm, eps=1e-3)),
    "rope of the global layers on all": ("gemma3", rope_base(lambda _: 1e6)),
    "one expert fewer": ("qwen3-moe", changed(Experts, 0, top=plus(-1))),
    "router weights renormalised or not": ("qwen3-moe", changed(Experts, 0, renormalise=opposite)),
    "padding leaks into a recurrent state": ("qwen3-next", without(DeltaScan, "mask", 0)),
    "padding leaks into a convolution's state": ("qwen3-next", without(CausalConv, "mask", 0)),
    "queries of the delta rule not scaled": ("qwen3-next", changed(DeltaScan, 0, scale=1.0)),
    "states of two layers exchanged": (
        "qwen3-next", outputs_exchanged("present.0.recurrent_state", "present.1.recurrent_state"),
    ),
    "mask of a text encoder ignored": ("bert", without(Attention, "key_mask")),
    "token types taken from the wrong input": ("bert", inputs_exchanged("token_type_ids", "attention_mask")),
    "mean over the padding too": ("bert", without(Pool, "mask")),
    "sentence vectors not scaled to length 1": ("bert", skipped(L2Normalize)),
    "relative bias dropped": ("mpnet", without(Attention, "bias", 0)),
    "relative bias by other buckets": ("mpnet", changed(RelativeBias, max_distance=times(2))),
    "norm of the embeddings with another epsilon": ("roberta", changed(Norm, 0, eps=0.3)),
    "local attention reaches one token further": (
        "modernbert", changed(Attention, visibility=seen(left=plus(1), right=plus(1))),
    ),
    "layer scale dropped": ("dinov2", skipped(Binary, 0, is_product)),
    "rows and columns of a patch exchanged": ("vit", weight_changed("projection.weight", patches_turned)),
}  # fmt: skip

FAULTS = (
    *(Fault(name, "tiny-llama", plant) for name, plant in _LLAMA.items()),
    *(Fault(name, example, plant) for name, (example, plant) in _OTHERS.items()),
)
"""Every planted compiler fault."""
