"""A finished build under check: its graphs in onnxruntime, and what they should give by the interpreter."""

from __future__ import annotations

import functools
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from flowc.build.compiled import Compiled
from flowc.errors import CheckFailed, InternalError
from flowc.ir.graph import Graph, Node
from flowc.ir.interpret import interpret
from flowc.ir.types import SEQUENCE, TOTAL, TensorType
from flowc.ir.weights.expressions import Generated, Read, Weight
from flowc.outside.foreign import foreign
from flowc.outside.runtime import onnxruntime, open_graph
from flowc.runtime import session as sessions
from flowc.spec.spec import Phase
from flowc.verify.compare import Deviation, compare, tolerance_of
from flowc.verify.inputs import PRESENT, Call, Feeder

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Array = np.ndarray[Any, np.dtype[Any]]


KEPT_BYTES = 1 << 30
"""Weights that the reference keeps between its runs."""


class Subject:
    """A build's compiled form beside its files."""

    def __init__(self, compiled: Compiled, files: Mapping[Phase, Path], read: Read | None = None) -> None:
        if read is None and compiled.checkpoint is None:
            raise InternalError("a reference needs weights")
        self.compiled = compiled
        self.files = files
        self.checkpoint_read: Read = read or cast("Any", compiled.checkpoint).read
        """Reads tensors and keeps none."""
        self.read: Read = KeptWeights(self.checkpoint_read, KEPT_BYTES)
        self.feeder = Feeder(compiled)
        self._internal = {public: name for name, public in compiled.spec.public_names.items()}

    @property
    def graphs(self) -> Mapping[Phase, Graph]:
        """What was lowered: the graphs after the passes."""
        return self.compiled.graphs

    @property
    def meanings(self) -> Mapping[Phase, Graph]:
        """What each graph is held to: the spec's meaning, before any pass."""
        return self.compiled.expanded

    def tolerance(self, phase: Phase) -> float:
        """Allowed error of a graph's outputs; see `compare`."""
        nodes = self.graphs[phase].nodes
        return tolerance_of(len(nodes), amplified=any(node.op.amplifies_rounding for node in nodes))

    def session(self, phase: Phase) -> InferenceSession:
        """A session of a graph file; opened once."""
        if phase not in self._sessions:
            self._sessions[phase] = sessions.open_session(self.files[phase], prepack=False, spin=False)
        return self._sessions[phase]

    def release(self) -> None:
        """Close all sessions; one that is asked for again is opened again."""
        self._sessions.clear()

    @functools.cached_property
    def _sessions(self) -> dict[Phase, InferenceSession]:
        return {}

    def run(self, call: Call) -> dict[str, Array]:
        """Outputs of the built graph by name."""
        return run(self.session(call.phase), call)

    def reference(self, call: Call, watch: Callable[[Node, tuple[Array, ...]], None] | None = None) -> dict[str, Array]:
        """What the outputs should be."""
        return interpret(self.meanings[call.phase], call.feeds, self.read, watch)

    def specified(self, call: Call, name: str, kind: TensorType) -> Array:
        """Where a value is specified; a recurrent state is so in every row, though all new tokens are masked."""
        name = self._internal.get(name, name)
        if name.startswith(PRESENT) and not {SEQUENCE, TOTAL} & set(kind.shape):
            return np.ones((1,) * kind.rank, bool)
        return call.valid(kind)

    def outputs_differ(self, call: Call, found: Mapping[str, Array], expected: Mapping[str, Array]) -> list[Deviation]:
        """The comparison of each output, worst first."""
        kinds = {o.name: o.value.type for o in self.meanings[call.phase].outputs}
        tolerance = self.tolerance(call.phase) * call.slack
        compared = [
            compare(name, found[name], expected[name], self.specified(call, name, kind), tolerance)
            for name, kind in kinds.items()
            if name in expected
        ]
        return sorted(compared, key=lambda d: -d.ratio)

    def weight(self, weight: Weight) -> Array:
        """The values of a weight; tables that are computed, such as rope's, are computed once."""
        if not isinstance(weight, Generated):
            return weight.evaluate(self.read)
        if weight.key not in self._tables:
            self._tables[weight.key] = weight.evaluate(self.read)
        return self._tables[weight.key]

    @functools.cached_property
    def _tables(self) -> dict[str, Array]:
        return {}

    def made(self, phase: Phase) -> frozenset[str]:
        """Names of all values that a graph file computes."""
        if phase not in self._made:
            graph = sessions.graph_file(self.files[phase]).graph
            self._made[phase] = frozenset(name for node in graph.node for name in node.output)
        return self._made[phase]

    @functools.cached_property
    def _made(self) -> dict[Phase, frozenset[str]]:
        return {}

    def inner(self, call: Call, names: Collection[str]) -> dict[str, Array]:
        """Values inside of a built graph by name, from a copy of it that gives them out; those that it has."""
        return run(exposed(self.files[call.phase], names), call)


class KeptWeights:
    """Reads tensors, and keeps those read lately within a number of bytes: one reference run follows another."""

    def __init__(self, read: Read, limit: int) -> None:
        self._read, self._limit = read, limit
        self._kept: OrderedDict[str, Array] = OrderedDict()
        self._size = 0

    def __call__(self, name: str, rows: slice | None = None) -> Array:
        """See `Checkpoint.read`."""
        if name in self._kept:
            self._kept.move_to_end(name)
        elif rows is not None:
            return self._read(name, rows)
        else:
            self._kept[name] = self._read(name, None)
            self._size += self._kept[name].nbytes
            while self._size > self._limit and len(self._kept) > 1:
                self._size -= self._kept.popitem(last=False)[1].nbytes
        return self._kept[name] if rows is None else self._kept[name][rows]


def run(session: InferenceSession, call: Call) -> dict[str, Array]:
    """All outputs of a session, by name."""
    names = list(sessions.outputs(session))
    with foreign(lambda why: CheckFailed.of("run-failed", f"the {call.phase} graph stopped ({call.label}): {why}")):
        results: list[Array] = cast("Any", session).run(names, dict(call.feeds))
    return dict(zip(names, results, strict=True))


def _behind_links(model: Any, file: Path) -> Path:
    """The folder in which a copy of a graph finds its data: its own, or, where the data is a link, that of the file.

    A graph that onnxruntime opens by its path may have its data behind a link (a hub's cache); a copy in memory has no
    path, so it is given the real names.
    """
    tensors: list[Any] = [t for t in model.graph.initializer if t.data_location == t.EXTERNAL]
    entries: list[Any] = [e for t in tensors for e in t.external_data if e.key == "location"]
    real = {entry.value: (file.parent / entry.value).resolve() for entry in entries}
    if all(path.parent == file.parent.resolve() for path in real.values()):
        return file.parent
    folders = {path.parent for path in real.values()}
    if len(folders) > 1:
        message = f"the data files of {file.name} are links into several folders: copy them first"
        raise CheckFailed.of("load-failed", message)
    for entry in entries:
        entry.value = real[entry.value].name
    return folders.pop()


def exposed(file: Path, names: Collection[str]) -> InferenceSession:
    """A session of a copy of a graph, made in memory, that also gives out values by name."""
    import onnx

    ort = onnxruntime()

    model = sessions.graph_file(file)
    made = {name for node in model.graph.node for name in node.output}
    there = {output.name for output in model.graph.output}
    for name in names:
        if name in made and name not in there:
            model.graph.output.append(onnx.ValueInfoProto(name=name))
    folder = _behind_links(model, file)
    options = ort.SessionOptions()
    options.log_severity_level = 4  # errors are raised, and told by who catches them
    options.intra_op_num_threads = sessions.physical_cores()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    options.add_session_config_entry("session.disable_prepacking", "1")
    with foreign(lambda why: CheckFailed.of("load-failed", f"onnxruntime does not load a copy of {file.name}: {why}")):
        return open_graph(model.SerializeToString(), options)
