"""One flow, one graph per phase: which phases a spec has, and the whole graph of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from flowc.errors import Diagnostics
from flowc.frontend.builder import Builder
from flowc.frontend.expand import Expander
from flowc.frontend.reporter import Failed
from flowc.frontend.stage import REGISTRY
from flowc.frontend.state import Options
from flowc.frontend.usage import Usage
from flowc.ir.graph import Graph, Output, Value
from flowc.ir.ports import PAST, past_name
from flowc.spec.spec import DECODER_PHASES, Phase, Spec
from flowc.text.source import ListNode, MapNode, Scalar
from flowc.text.source import Node as SpecNode


def expand(spec: Spec, phase: Phase, usage: Usage, options: Options, problems: Diagnostics) -> Graph | None:
    """The graph of a phase, or None when something was wrong (and collected in `problems`)."""
    flow = spec.flow(phase)
    assert flow is not None, f"{phase} is none of phases_of(spec)"
    b = Builder(spec, phase, usage, options, problems)
    try:
        x = Expander(b, usage, problems).run(flow.items, b.tokens())
    except Failed:
        return None
    if b.state.residual is not None:
        hint = "`residual_add` adds it"
        problems.error("unused-residual", "a residual is saved and never added", b.state.residual.span, hint)
    if x not in b.outputs.values():
        default = "logits" if phase != "encode" else "last_hidden_state"
        b.outputs = {spec.output or default: x, **b.outputs}
    _as_wide_as_the_vocabulary(b, spec, flow, problems)
    usage.count_stages(b.nodes, b.outputs.values())
    caches = b.caches()
    for cache in caches if any(c.present for c in caches) else ():
        if cache.past is not None and cache.present is None:
            message = (
                f"the {phase} graph takes the cache '{past_name(cache.layer, cache.slot)}', and no stage hands it on"
            )
            problems.error("unlike-caches", message, flow.span, "`bind_decode_inputs` binds the layers that follow it")
    usage.ports.update(b.outputs)
    outputs = tuple(Output(spec.public(n), v) for n, v in b.outputs.items())
    if not _distinct([v.name for v in b.inputs.values()] + [o.name for o in outputs], spec, problems):
        return None
    return Graph(phase, _ordered(b, spec), outputs, tuple(b.nodes), b.facts, caches)


def _as_wide_as_the_vocabulary(b: Builder, spec: Spec, flow: ListNode, problems: Diagnostics) -> None:
    """Refuse `logits` that are not the scores of the vocabulary's words: whoever runs the model takes them for ids."""
    logits, vocab = b.outputs.get("logits"), spec.integer("vocab")
    if b.phase not in DECODER_PHASES or logits is None or vocab is None:
        return
    width = logits.shape[-1] if logits.shape else 1
    if width != vocab:
        message = f"the decoder's `logits` are {width} wide, and the vocabulary has {vocab} words"
        hint = "`lm_head` makes logits; a head of another kind is no language model's, and says so: `output: scores`"
        problems.error("logits-width", message, flow.items[-1].span if flow.items else flow.span, hint)


def _distinct(public: Sequence[str], spec: Spec, problems: Diagnostics) -> bool:
    """Whether no two inputs or outputs have the same name; those that the spec renamed are shown."""
    twice = sorted(name for name, count in Counter(public).items() if count > 1)
    for name in twice:
        span = next((r.span for r in spec.rename.values() if r.public == name), None)
        problems.error("duplicate-output", f"two inputs or outputs of the graph would be named '{name}'", span)
    return not twice


def _ordered(b: Builder, spec: Spec) -> tuple[Value, ...]:
    """Inputs: tokens, mask and other named ones as declared, then the past by layer."""

    def rank(item: tuple[int, str]) -> tuple[bool, int]:
        place, name = item
        return name.startswith(PAST), place

    return tuple(b.inputs[name] for _, name in sorted(enumerate(b.inputs), key=rank))


def is_decoder(spec: Spec) -> bool:
    """Whether the spec makes a decoder: as it says, or because a stage of its flow keeps a cache."""
    if spec.kind is not None:
        return spec.kind == "decoder"
    return any(_has_cache(flow) for flow in spec.flows.values())


def _has_cache(node: SpecNode) -> bool:
    """Whether a kind with a cache stands anywhere below a node; a word elsewhere in a flow cannot look like one."""
    if isinstance(node, Scalar):
        cls = REGISTRY.get(str(node.value))
        return cls is not None and cls.cached
    if isinstance(node, ListNode):
        return any(_has_cache(item) for item in node.items)
    return any(
        _has_cache(e.key) or (isinstance(e.value, (ListNode, MapNode)) and _has_cache(e.value)) for e in node.entries
    )


def phases_of(spec: Spec) -> tuple[Phase, ...]:
    """The phases that a spec can be built for, in the order in which they are built."""
    every: tuple[Phase, ...] = DECODER_PHASES if is_decoder(spec) else ("encode",)
    return tuple(p for p in every if spec.flow(p) is not None)


def phases_asked(spec: Spec, asked: Sequence[str]) -> tuple[Phase, ...]:
    """The phases to build: all that the spec has, or those that were asked for.

    Raises SpecError for a flow that is never built and for a graph that the spec does not have.
    """
    possible = phases_of(spec)
    problems = Diagnostics()
    for phase, flow in spec.flows.items():
        if phase != "*" and phase not in possible:
            kind = "decoder" if is_decoder(spec) else "encoder"
            message = f"the spec is of kind '{kind}', so its flow '{phase}' would never be built"
            problems.error("wrong-phase", message, flow.span)
    for graph in asked:
        if graph not in possible:
            hint = f"it has {', '.join(possible) or 'none at all'}"
            problems.error("unknown-graph", f"this spec has no graph '{graph}'", hint=hint)
    problems.raise_if_any()
    return tuple(p for p in possible if not asked or p in asked)
