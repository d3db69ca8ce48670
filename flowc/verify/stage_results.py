"""What stages give: under which paths, and in which values of a graph file.

A stage's result is what its last operator gives. What a file does not compute by itself or not for every token (a pass
or a target made it a part of something else) is not there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from flowc.ir.graph import Graph, Node, Value
from flowc.ir.types import TensorType
from flowc.runtime import session as sessions
from flowc.verify.built_model import BuiltModel, exposed, names_in_file
from flowc.verify.inputs import Array, Arrays


@dataclass(frozen=True, slots=True)
class Comparable:
    """What an array of a reference may be compared with: `in_file` is its name in the graph file."""

    name: str
    in_file: str
    kind: TensorType
    inside: bool
    """Not one of the graph's outputs."""


def comparable(subject: BuiltModel, phase: str) -> list[Comparable]:
    """Outputs, results of stages and values inside of a graph, in the order in which they are computed."""
    graph, made = subject.meanings[phase], subject.made(phase)
    kept = {v.name: v.type for node in subject.graphs[phase].nodes for v in node.outputs}
    names = names_in_file(graph)
    outputs: dict[Value, list[str]] = {}
    for output in graph.outputs:
        outputs.setdefault(output.value, []).append(output.name)
    results: dict[Value, list[str]] = {}
    for path, node in stage_paths(graph).items():
        results.setdefault(node.outputs[0], []).append(path)
    found: list[Comparable] = []
    for value in (v for node in graph.nodes for v in node.outputs):
        found += [Comparable(name, name, value.type, inside=False) for name in outputs.get(value, ())]
        if names[value] in made and kept.get(value.name) == value.type:
            known = dict.fromkeys([value.name, *results.get(value, ())])
            found += [Comparable(name, names[value], value.type, inside=True) for name in known]
    return found


def stage_paths(graph: Graph) -> dict[str, Node]:
    """The last operator of every stage, and of the stages that it is a part of, by path."""
    return {path: node for node in graph.nodes for path in _paths(node.origin.stage)}


def _paths(stage: str) -> list[str]:
    parts = stage.split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts) + 1)]


@dataclass(frozen=True, slots=True)
class StageResults:
    """One call of a graph: what it was fed, what it gave, and what each of its stages gave."""

    feeds: Arrays
    outputs: Mapping[str, Array]
    stages: Mapping[str, Array]
    """By path, in the order in which they are computed."""
    missing: tuple[str, ...]
    """Stages whose results the file does not compute, or not for every token."""


def stage_results(subject: BuiltModel, phase: str, feeds: Arrays) -> StageResults:
    """Run a graph once, from a copy in memory that gives out what is inside of it.

    Raises SpecError for feeds that do not fit, as `flowc.runtime.session.run_once` does.
    """
    paths = stage_paths(subject.meanings[phase])
    held = {one.name: one.in_file for one in comparable(subject, phase) if one.name in paths}
    session = exposed(subject.files[phase], dict.fromkeys(held.values()))
    fed = sessions.implied(session, feeds)
    found = sessions.run_once(session, fed)
    outputs = {output.name: found[output.name] for output in subject.graphs[phase].outputs}
    stages = {path: found[name] for path, name in held.items()}
    return StageResults(fed, outputs, stages, tuple(path for path in paths if path not in held))
