"""`flowc.check`: everything that needs no weight data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import prod
from typing import TYPE_CHECKING, Any, Unpack

from flowc.api.specs import Form, SpecLike, compiled, request_of

if TYPE_CHECKING:
    from flowc.build.compiled import Compiled
    from flowc.ir.graph import Graph
    from flowc.spec.spec import Spec


@dataclass(frozen=True, slots=True)
class Ports:
    """A graph's inputs and outputs with their types, as in `int64[batch_size, sequence_length]`."""

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]
    operators: int
    """How many the graph has."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What a sound spec makes."""

    name: str
    kind: str
    """decoder or encoder."""
    parameters: int
    """Numbers in the weights that the stages use; a tied tensor counts once."""
    tensors: int
    weights: str | None
    """What the weights are, in a line; None where they are not there."""
    weights_missing: str | None
    """Why no weights are at hand: names and shapes are then those that the spec says."""
    context_length: int | None
    graphs: Mapping[str, Ports]
    """By phase: unified, prefill, decode, encode."""

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def check(spec: SpecLike, **form: Unpack[Form]) -> Checked:
    """Check a spec without reading weight data; if the weights are there, their names and shapes must fit.

    Args:
        spec: a file, values in memory, or a loaded spec.
        form: see `Form`.

    Raises:
        SpecError: the spec is wrong; everything that can be found, at once.
        WeightsError: the weights do not fit it, or cannot be read.
    """
    return summary(compiled(spec, request_of(**form), need_weights=False))


def summary(compiled: Compiled) -> Checked:
    """What a compiled spec makes."""
    checkpoint = compiled.checkpoint
    return Checked(
        name=compiled.spec.name,
        kind=compiled.kind,
        parameters=sum(prod(shape) for shape, _ in compiled.usage.tensors.values()),
        tensors=len(compiled.usage.tensors),
        weights=checkpoint.describe() if checkpoint is not None else None,
        weights_missing=None if checkpoint is not None else _missing(compiled.spec),
        context_length=compiled.context_length,
        graphs={phase: Ports(**ports(graph), operators=len(graph.nodes)) for phase, graph in compiled.graphs.items()},
    )


def ports(graph: Graph) -> dict[str, dict[str, str]]:
    """Inputs and outputs of a graph with their types."""
    return {
        "inputs": {value.name: str(graph.port_type(value)) for value in graph.inputs},
        "outputs": {output.name: str(graph.port_type(output.value)) for output in graph.outputs},
    }


def _missing(spec: Spec) -> str:
    """Why no weights are at hand: which file is not there and where the spec names it, or that it names none."""
    path = spec.weights_path()
    if path is None or spec.weights is None:
        return "the spec names no weights"
    return f"there are no weights at '{path}', which {spec.weights.span} names"
