"""One flow, one graph per phase: which phases a spec has, and the whole graph of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from flowc.errors import Diagnostics
from flowc.frontend.builder import Builder
from flowc.frontend.expand import Expander
from flowc.frontend.reporter import Failed
from flowc.frontend.stage import REGISTRY
from flowc.frontend.state import Options
from flowc.frontend.usage import Usage
from flowc.ir.graph import Graph, Output, Value
from flowc.ir.phases import Phase, kind_of, phases_with
from flowc.ir.ports import past_name, takes_state
from flowc.spec.components import Component
from flowc.spec.spec import Spec
from flowc.text.source import ListNode, MapNode, Scalar
from flowc.text.source import Node as SpecNode


def expand(
    spec: Spec, phase: Phase, usage: Usage, options: Options, problems: Diagnostics,
    component: Component | None = None, before: Mapping[str, Graph] | None = None,
) -> Graph | None:  # fmt: skip
    """The graph of a phase of a component (the main one), or None when something was wrong (and is in `problems`).

    `before` are the graphs of the components that come before it, by name.
    """
    component = component or spec.main
    flow = component.flow(phase.name)
    assert flow is not None, f"{phase} is none of phases_of(component)"
    b = Builder(spec, phase, usage, options, problems, component, before)
    try:
        x = Expander(b, usage, problems).run(flow.items, b.tokens())
    except Failed:
        return None
    if b.state.residual is not None:
        hint = "`residual_add` adds it"
        problems.error("unused-residual", "a residual is saved and never added", b.state.residual.span, hint)
    if x not in b.outputs.values():
        default = "logits" if phase.emits_cache else "last_hidden_state"
        b.outputs = {component.output or default: x, **b.outputs}
    _as_wide_as_the_vocabulary(b, spec, flow, problems)
    usage.count_stages(b.nodes, b.outputs.values())
    caches = b.caches()
    for cache in caches if any(c.present for c in caches) else ():
        if cache.past in b.connections:
            continue
        if cache.past is not None and cache.present is None:
            message = (
                f"the {phase} graph takes the cache '{past_name(cache.layer, cache.slot)}', and no stage hands it on"
            )
            problems.error("unlike-caches", message, flow.span, "`bind_decode_inputs` binds the layers that follow it")
    usage.port(component.name, *b.outputs)
    outputs = tuple(Output(spec.public(n), v) for n, v in b.outputs.items())
    if not _distinct([v.name for v in b.inputs.values()] + [o.name for o in outputs], spec, problems):
        return None
    return Graph(
        phase, _ordered(b, spec), outputs, tuple(b.nodes), b.facts, caches, component.name, component.main,
        b.connections,
    )  # fmt: skip


def _as_wide_as_the_vocabulary(b: Builder, spec: Spec, flow: ListNode, problems: Diagnostics) -> None:
    """Refuse `logits` that are not the scores of the vocabulary's words: whoever runs the model takes them for ids."""
    logits, vocab = b.outputs.get("logits"), spec.integer("vocab")
    if not b.phase.emits_cache or logits is None or vocab is None:
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
        return takes_state(name), place

    return tuple(b.inputs[name] for _, name in sorted(enumerate(b.inputs), key=rank))


def is_decoder(component: Component) -> bool:
    """Whether a component makes a decoder: as it says, or because a stage of its flow keeps a cache."""
    if component.kind is not None:
        return component.kind == kind_of(cache=True)
    return any(_has_cache(flow) for flow in component.flows.values())


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


def phases_of(component: Component) -> tuple[Phase, ...]:
    """The phases that a component can be built for, in the order in which they are built."""
    return tuple(p for p in phases_with(cache=is_decoder(component)) if component.flow(p.name) is not None)


@dataclass(frozen=True, slots=True)
class Step:
    """A graph to expand: of which component and phase, and whether it is asked for or only taken from."""

    component: Component
    phase: Phase
    asked: bool

    @property
    def name(self) -> str:
        """The graph's name."""
        return self.phase.name if self.component.main else self.component.name


def steps(spec: Spec, asked: Sequence[str]) -> tuple[Step, ...]:
    """The graphs to expand, component by component: all that the spec has, or those that were asked for.

    Components that others take from are expanded in any case. Raises SpecError for a flow that is never built and for
    a graph that the spec does not have.
    """
    problems = Diagnostics()
    every = [s for component in spec.components for s in _steps_of(component, asked, problems)]
    possible = [step.name for step in every]
    for graph in asked:
        if graph not in possible:
            hint = f"it has {', '.join(possible) or 'none at all'}"
            problems.error("unknown-graph", f"this spec has no graph '{graph}'", hint=hint)
    problems.raise_if_any()
    return tuple(step for step in every if step.asked or not step.component.main)


def _steps_of(component: Component, asked: Sequence[str], problems: Diagnostics) -> Iterator[Step]:
    possible, cache = phases_of(component), is_decoder(component)
    for phase, flow in component.flows.items():
        if phase != "*" and phase not in (p.name for p in possible):
            message = (
                f"{component.what} is of kind '{kind_of(cache=cache)}', so its flow '{phase}' would never be built"
            )
            problems.error("wrong-phase", message, flow.span)
    if cache and not component.main:
        message = f"{component.what} keeps a cache between calls, which the last component alone can do"
        problems.error("wrong-phase", message, component.span)
        return
    for phase in possible:
        step = Step(component, phase, asked=True)
        yield replace(step, asked=not asked or step.name in asked)


def check_connected(spec: Spec, graphs: Sequence[Graph], problems: Diagnostics) -> None:
    """Collect as errors what components hand over or give and no later one takes."""
    taken = {source for graph in graphs for source in graph.connections.values()}
    for component in spec.components[:-1]:
        if not any(source.partition(".")[0] == component.name for source in taken):
            hint = "`name: COMPONENT.port` under `inputs:` connects them; so does a stage that reads its caches"
            problems.error("unused-component", f"nothing takes what {component.what} gives", component.span, hint)
            continue
        own = [graph for graph in graphs if graph.component == component.name]
        left = [s.present for g in own for s in g.caches if f"{component.name}.{s.present}" not in taken]
        if left:
            shown = ", ".join(map(str, left[:4])) + (f" and {len(left) - 4} more" if len(left) > 4 else "")
            message = f"{component.what} hands over {shown}, which no later component reads"
            problems.error("unconnected-cache", message, component.span)
