"""A finished build under check: its graphs in onnxruntime, and what they should give by the interpreter."""

from __future__ import annotations

import copy
import functools
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, cast

import numpy as np

from flowc.build.compiled import Compiled
from flowc.errors import CheckFailed, InternalError
from flowc.ir.graph import Graph, Node, Value
from flowc.ir.interpret import interpret
from flowc.ir.types import BATCH, SEQUENCE, TOTAL, TensorType
from flowc.ir.weights.blocks import AsStored
from flowc.ir.weights.expressions import Generated, Read, Weight
from flowc.outside.foreign import foreign
from flowc.outside.runtime import onnxruntime, open_graph
from flowc.runtime import session as sessions
from flowc.verify.compare import Deviation, compare
from flowc.verify.disturbed import Allowance, allowances, disturbed, moved_values, routers, ties
from flowc.verify.inputs import Call, Feeder
from flowc.verify.rounding import PROBES, moved, rounds, row_means, unit_roundoff

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

Array = np.ndarray[Any, np.dtype[Any]]


KEPT_BYTES = 1 << 30
"""Weights that the reference keeps between its runs."""

ONE_SESSION_BYTES = 1 << 31
"""Weights from which on sessions are open one after the other: each of them maps all weights."""

Change = Callable[[Node, tuple[Array, ...]], tuple[Array, ...]]

KEPT_ALLOWANCES = 4
"""Calls whose allowances are kept: those that are compared with one another."""


class BuiltModel:
    """A build's compiled form beside its files."""

    def __init__(self, compiled: Compiled, files: Mapping[str, Path], read: Read | None = None) -> None:
        if read is None and compiled.checkpoint is None:
            raise InternalError("a reference needs weights")
        self.compiled = compiled
        self.files = files
        self.checkpoint_read: Read = read or cast("Any", compiled.checkpoint).read
        """Reads tensors and keeps none."""
        weights = {w.key: w.nbytes for graph in compiled.graphs.values() for w in graph.weights()}
        self.weight_bytes = sum(weights.values())
        """Bytes of all weights of the graphs."""
        self.read: Read = KeptWeights(self.checkpoint_read, KEPT_BYTES, whole=self.weight_bytes <= KEPT_BYTES)
        self.feeder = Feeder(compiled)

    @functools.cached_property
    def parts(self) -> list[Self]:
        """The model component by component, each with inputs of its own; itself where it is of one."""
        names = [component.name for component in self.compiled.spec.components]
        if len({graph.component for graph in self.compiled.graphs.values()}) == 1:
            return [self]
        parts: list[Self] = []
        for name in names:
            compiled = self.compiled.part(name)
            if compiled.graphs:
                part = copy.copy(self)
                part.compiled, part.feeder = compiled, Feeder(compiled)
                parts.append(part)
        return parts

    @property
    def graphs(self) -> Mapping[str, Graph]:
        """What was lowered: the graphs after the passes."""
        return self.compiled.graphs

    @property
    def runs_here(self) -> bool:
        """Whether onnxruntime's CPU provider has kernels for the graphs; else the kernels' meanings stand for them."""
        return self.compiled.request.dtype in self.compiled.target.on_cpu

    @property
    def meanings(self) -> Mapping[str, Graph]:
        """What each graph is held to: the spec's meaning, before any pass."""
        return self.compiled.expanded

    def allowance(self, call: Call, found: Mapping[str, Array]) -> Allowance:
        """How far rounding may move each output of a call, of which `found` is what the graph gives; kept for a while.

        See `disturbed.py`.
        """
        for kept, allowance in self._allowances:
            if kept is call:
                return allowance
        allowance = self._allowance(call, found)
        self._allowances.append((call, allowance))
        del self._allowances[:-KEPT_ALLOWANCES]
        return allowance

    def share_allowance(self, call: Call, twin: Call) -> None:
        """Let a call be allowed what its twin was: the same inputs, fed to another graph of the same meaning.

        What moving the numbers does to a result is a fact of the numbers, and both graphs compute the same ones.
        """
        kept = next((a for c, a in self._allowances if c is twin), None)
        if kept is None:
            return
        self._allowances.append((call, kept))
        for (phase, name), share in list(self.shares.items()):
            if phase == twin.phase:
                self.shares[call.phase, name] = max(share, self.shares.get((call.phase, name), 0.0))

    def _allowance(self, call: Call, found: Mapping[str, Array]) -> Allowance:
        graph, types = self.graphs[call.phase], {o.name: o.value.type for o in self.meanings[call.phase].outputs}
        chosen = routers(graph, names_in_file(graph))
        session = self._disturbed(call.phase) if self.runs_here else None
        if self.runs_here:
            runs = [run(session, call) if session is not None else found for _ in range(PROBES)]
        else:
            runs = [self._meant_moved(call, [r.scores for r in chosen], probe) for probe in range(PROBES)]
        tied = ties(chosen, runs) if session is not None or not self.runs_here else None
        if tied is not None:
            behind: Array = np.maximum.accumulate(tied, axis=1)
            if not graph.phase.emits_cache:
                behind = np.broadcast_to(tied.max(axis=1, keepdims=True), tied.shape)
            tied = np.broadcast_to(behind, call.new.shape)
        recent = {name: self._recent(call, type_) for name, type_ in types.items()}
        wheres = {name: self.specified(call, name, type_) for name, type_ in types.items()}
        wheres = {name: _cut(where, found[name].shape, recent[name]) for name, where in wheres.items()}
        own = {name: found[name][cut] for name, cut in recent.items()}
        errors = allowances(own, [{name: one[name][cut] for name, cut in recent.items()} for one in runs], wheres)
        for name in [n for n, array in own.items() if array.dtype.kind == "f"]:
            size = np.sqrt(row_means(np.square(own[name], dtype=np.float64), wheres[name]))
            share = np.divide(errors[name], size, out=np.zeros(own[name].shape), where=(size > 0) & wheres[name])
            self.shares[call.phase, name] = max(self.shares.get((call.phase, name), 0.0), float(share.max(initial=0)))
        return Allowance(errors, tied)

    def _recent(self, call: Call, type_: TensorType) -> tuple[slice, ...]:
        """The part of an output that the call computes: of a cache the new columns, where it is no compact one."""
        new, total = call.new.shape[1], call.total.shape[1]
        whole = new == total or self.compiled.request.options.assume == "right-padding"
        return tuple(slice(total - new, None) if d == TOTAL and not whole else slice(None) for d in type_.shape)

    @functools.cached_property
    def shares(self) -> dict[tuple[str, str], float]:
        """The largest error that was allowed so far, by graph and output, as a share of its row's root mean square."""
        return {}

    def _disturbed(self, phase: str) -> InferenceSession | None:
        """A session of the moved copy; None for a file that is not of this graph, which no rounding excuses."""
        if phase not in self._copies:
            self._make_room()
            graph = self.graphs[phase]
            names = names_in_file(graph)
            scores = [router.scores for router in routers(graph, names)]
            copy = disturbed(self.files[phase], list(moved_values(graph, names)), scores)
            try:
                self._copies[phase] = session_of_copy(copy, self.files[phase], optimised=self.large)
            except CheckFailed:
                self._copies[phase] = None
        return self._copies[phase]

    @functools.cached_property
    def _copies(self) -> dict[str, InferenceSession | None]:
        return {}

    @functools.cached_property
    def _allowances(self) -> list[tuple[Call, Allowance]]:
        return []

    def session(self, phase: str) -> InferenceSession:
        """A session of a graph file; opened once, or again after that of another one where weights are large."""
        if phase not in self._sessions:
            self._make_room()
            self._sessions[phase] = sessions.open_session(self.files[phase], prepack=False, spin=False)
        return self._sessions[phase]

    def _make_room(self) -> None:
        """Close what is open where each session maps all weights of a large model."""
        if self.large:
            self.release()

    @functools.cached_property
    def large(self) -> bool:
        """Whether no two sessions are to be open at once."""
        return self.weight_bytes > ONE_SESSION_BYTES

    def release(self) -> None:
        """Close all sessions; one that is asked for again is opened again."""
        self._sessions.clear()
        self._copies.clear()

    @functools.cached_property
    def _sessions(self) -> dict[str, InferenceSession]:
        return {}

    def run(self, call: Call) -> dict[str, Array]:
        """Outputs of the built graph by name."""
        return run(self.session(call.phase), call) if self.runs_here else self._meant(call)

    def _meant(self, call: Call, change: Change | None = None) -> dict[str, Array]:
        """Outputs of the kernels' meanings."""
        return _single(interpret(self.graphs[call.phase], call.feeds, self.read, change=change))

    def _meant_moved(self, call: Call, scores: Collection[str], probe: int) -> dict[str, Array]:
        """The same where every number is moved by a few roundings; routers' scores beside the outputs."""
        rng, names = np.random.default_rng(probe), names_in_file(self.graphs[call.phase])
        inner: dict[str, Array] = {}

        def change(node: Node, results: tuple[Array, ...]) -> tuple[Array, ...]:
            changed = tuple(moved(r, unit_roundoff(r.dtype.name), rng) if rounds(r) else r for r in results)
            inner.update({names[v]: r for v, r in zip(node.outputs, changed, strict=True) if names[v] in scores})
            return changed

        return {**self._meant(call, change), **_single(inner)}

    def reference(self, call: Call, watch: Callable[[Node, tuple[Array, ...]], None] | None = None) -> dict[str, Array]:
        """What the outputs should be."""
        return _single(interpret(self.meanings[call.phase], call.feeds, self.read, watch))

    def specified(self, call: Call, name: str, type_: TensorType) -> Array:
        """Where a value is specified; a recurrent state is so in every row, though all new tokens are masked."""
        if call.tied is not None and not {SEQUENCE, TOTAL} & set(type_.shape) and type_.shape[:1] == (BATCH,):
            return ~call.tied.any(axis=1).reshape(-1, *(1,) * (type_.rank - 1)) & self._specified(call, name, type_)
        return self._specified(call, name, type_)

    def _specified(self, call: Call, name: str, type_: TensorType) -> Array:
        if name in self.graphs[call.phase].cache_ports and not {SEQUENCE, TOTAL} & set(type_.shape):
            return np.ones((1,) * type_.rank, bool)
        return call.valid(type_)

    def outputs_differ(
        self, call: Call, found: Mapping[str, Array], expected: Mapping[str, Array], own: Mapping[str, Array],
        more: Mapping[str, Array] | None = None,
    ) -> list[Deviation]:  # fmt: skip
        """The comparison of each output, worst first; `own` is what the graph itself gives for the call.

        `more` is allowed beside what rounding may move the outputs by.
        """
        types = {o.name: o.value.type for o in self.meanings[call.phase].outputs}
        allowance = self.allowance(call, own)
        sure, more = call.without(allowance.tied), more or {}
        compared: list[Deviation] = []
        for name, type_ in types.items():
            if name not in expected:
                continue
            where, recent = self.specified(sure, name, type_), self._recent(call, type_)
            shape, errors = found[name].shape, allowance.errors[name]
            if name not in more and expected[name].shape == shape and _same_before(found[name], expected[name], recent):
                cut = _cut(where, shape, recent)
                compared.append(compare(name, found[name][recent], expected[name][recent], cut, errors))
            else:
                allowed: Array = np.zeros(shape)
                allowed[recent] = errors
                compared.append(compare(name, found[name], expected[name], where, allowed + more.get(name, 0.0)))
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

    def made(self, phase: str) -> frozenset[str]:
        """Names of the values that a graph file computes and can give out: numpy has no bfloat16 to carry."""
        if phase not in self._made:
            graph = sessions.graph_file(self.files[phase]).graph
            ours = names_in_file(self.graphs[phase])
            untold = {name for value, name in ours.items() if value.dtype == "bfloat16"}
            self._made[phase] = frozenset(name for node in graph.node for name in node.output) - untold
        return self._made[phase]

    @functools.cached_property
    def _made(self) -> dict[str, frozenset[str]]:
        return {}

    def inner(self, call: Call, names: Collection[str]) -> dict[str, Array]:
        """Values inside of a built graph by name, from a copy of it that gives them out; those that it has."""
        self._make_room()
        return run(exposed(self.files[call.phase], names), call)


def _single(arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Arrays of bfloat16 as float32, as which numpy compares them."""
    return {n: a.astype(np.float32) if a.dtype.name == "bfloat16" else a for n, a in arrays.items()}


def names_in_file(graph: Graph) -> dict[Value, str]:
    """The ONNX name of every computed value: its own, or that of the output that it is."""
    names = {value: value.name for node in graph.nodes for value in node.outputs}
    for output in reversed(graph.outputs):
        names[output.value] = output.name
    return names


def _cut(where: Array, shape: tuple[int, ...], part: tuple[slice, ...]) -> Array:
    """A part of what is broadcastable to a shape, broadcastable to the part."""
    return np.broadcast_to(where, shape)[part]


def _same_before(found: Array, expected: Array, recent: tuple[slice, ...]) -> bool:
    """Whether the columns before the recent ones, which are copies, are equal."""
    before = tuple(slice(0, s.start) if s.start else s for s in recent)
    return before == recent or bool(np.array_equal(found[before], expected[before]))


class KeptWeights:
    """Reads tensors, and keeps those read lately within a number of bytes: one reference run follows another.

    `whole`: all of them fit, so that one is read whole when some of its rows are asked for.
    """

    def __init__(self, read: Read, limit: int, *, whole: bool = False) -> None:
        self._read, self._limit, self._whole = read, limit, whole
        self._kept: OrderedDict[str, Array] = OrderedDict()
        self._size = 0

    def __call__(self, name: str, rows: slice | None = None) -> Array:
        """See `Checkpoint.read`."""
        if isinstance(name, AsStored):  # as text it is equal to the decoded tensor's name
            return self._read(name, rows)
        if name in self._kept:
            self._kept.move_to_end(name)
        elif rows is not None and not self._whole:
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

    model = sessions.graph_file(file)
    made = {name for node in model.graph.node for name in node.output}
    there = {output.name for output in model.graph.output}
    for name in names:
        if name in made and name not in there:
            model.graph.output.append(onnx.ValueInfoProto(name=name))
    return session_of_copy(model, file)


def session_of_copy(model: Any, file: Path, *, optimised: bool = True) -> InferenceSession:
    """A session of a model in memory that reads the weights of a graph file.

    One that is not `optimised` opens faster and holds a weight transposed while it is multiplied with.
    """
    folder, ort = _behind_links(model, file), onnxruntime()
    options = ort.SessionOptions()
    options.log_severity_level = 4  # errors are raised, and told by who catches them
    options.intra_op_num_threads = sessions.physical_cores()
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    options.add_session_config_entry("session.disable_prepacking", "1")
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    with foreign(lambda why: CheckFailed.of("load-failed", f"onnxruntime does not load a copy of {file.name}: {why}")):
        return open_graph(model.SerializeToString(), options)
