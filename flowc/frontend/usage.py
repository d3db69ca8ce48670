"""What the expansion of all phases of a build used of its spec and of its weights, and what is left over."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from flowc.errors import Diagnostics, Span, WeightsError, nearest
from flowc.ir.graph import Node, Origin, Value
from flowc.spec.spec import METADATA_SYMBOLS, Spec


class TensorUse(NamedTuple):
    """A tensor of the checkpoint as the first stage that used it took it."""

    shape: tuple[int, ...]
    origin: Origin


@dataclass(slots=True)
class Usage:
    """Shared by all phases of a build."""

    shapes: Mapping[str, tuple[int, ...]] | None = None
    """Shapes of the checkpoint's tensors; None when there is none: every tensor is believed to exist as declared."""
    unreadable: bool = False
    """Whether there should be a checkpoint: what it would tell is then not asked of the spec."""
    tensors: dict[str, TensorUse] = field(default_factory=dict[str, TensorUse])
    ports: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    """Inputs and outputs of each component's graphs, before the spec renames them."""
    symbols: set[str] = field(default_factory=set[str])
    """Entries of `model:` that stages read, or would have read."""
    stages: dict[Span, Origin] = field(default_factory=dict[Span, Origin])
    """Stages that compute something in a graph, by their places in the spec."""
    live: set[Span] = field(default_factory=set[Span])
    """Places of stages of which a graph needs a result."""
    included: dict[str, str] = field(default_factory=dict[str, str])
    """Texts of the files beside the spec that stages read, by the names that the spec gives them."""

    def count_stages(self, nodes: Sequence[Node], outputs: Iterable[Value]) -> None:
        """Note which stages of a whole graph compute something, and of which of them its outputs need it."""
        needed = set(outputs)
        for node in reversed(nodes):
            span = node.origin.span
            if span is not None:
                self.stages.setdefault(span, node.origin)
            if not needed.isdisjoint(node.outputs):
                needed.update(v for v in node.inputs if v is not None)
                if span is not None:
                    self.live.add(span)

    def port(self, component: str, *names: str) -> None:
        """Note inputs or outputs of a component's graph."""
        self.ports.setdefault(component, set()).update(names)

    def used(self, span: Span | None) -> None:
        """Note that what a stage makes is asked for."""
        if span is not None:
            self.live.add(span)

    def unused_tensors(self, patterns: Sequence[str]) -> list[str]:
        """Tensors of the checkpoint that no stage used and no pattern (`*` for any text) allows."""
        allowed = [re.compile(".*".join(map(re.escape, p.split("*")))) for p in patterns]
        left = [name for name in self.shapes or () if name not in self.tensors]
        return [name for name in left if not any(a.fullmatch(name) for a in allowed)]


def account(spec: Spec, usage: Usage, problems: Diagnostics) -> None:
    """Collect as errors what the spec or the weights give and nothing uses: what is left over was a mistake."""
    _symbols(spec, usage, problems)
    _ports(spec, usage, problems)
    _stages(usage, problems)
    left = usage.unused_tensors(spec.weights.allow_unused if spec.weights else ())
    if left:
        shown = ", ".join(left[:8]) + (f" and {len(left) - 8} more" if len(left) > 8 else "")
        message = f"no stage uses {len(left)} tensor{'s' if len(left) > 1 else ''} of the weights: {shown}"
        hint = "if that is meant, list patterns under `weights: {allow_unused: [...]}`"
        span = spec.weights.span if spec.weights else spec.span
        problems.error("unused-weights", message, span, hint, kind=WeightsError)


def _symbols(spec: Spec, usage: Usage, problems: Diagnostics) -> None:
    used = usage.symbols | spec.input_symbols
    for name, symbol in spec.model.items():
        if name not in used and name not in METADATA_SYMBOLS:
            hint = nearest(name, used - spec.model.keys())
            problems.error("unused-symbol", f"nothing reads the model symbol '{name}'", symbol.span, hint)


def _stages(usage: Usage, problems: Diagnostics) -> None:
    for span in sorted(usage.stages.keys() - usage.live, key=lambda span: (span.line, span.column)):
        message = f"nothing uses what stage '{usage.stages[span].kind}' computes"
        problems.error("unused-stage", message, span, "let a stage after it read it, or take it away")


def _ports(spec: Spec, usage: Usage, problems: Diagnostics) -> None:
    for component in spec.components:
        ports = usage.ports.get(component.name, set())
        for declared in component.inputs:
            if declared.name not in ports:
                message = f"no stage reads the input '{declared.name}'"
                problems.error("unused-input", message, declared.span, nearest(declared.name, ports))
    ports = {name for names in usage.ports.values() for name in names}
    for rename in spec.rename.values():
        if rename.name not in ports:
            hint = nearest(rename.name, ports) or f"it has {', '.join(sorted(ports)[:8])}"
            message = f"no graph has an input or output '{rename.name}' to rename"
            problems.error("unknown-port", message, rename.name_span, hint)
        if rename.public in ports and rename.public != rename.name:
            message = f"'{rename.name}' cannot be called '{rename.public}', which means another input or output"
            problems.error("taken-port", message, rename.span)
