"""From a finished build back to its compiled form, by nothing but its manifest.

The manifest holds the resolved spec and every option that decides the graphs, so compiling it again gives the IR that
the files were made of. The weights come, in this order, from

    --weights PATH          the original checkpoint
    the seed in the spec    for `weights: {random: ...}`
    the folder              for a build with --in-place, whose weights lie beside it
    the build's data file   when nothing else is there: then the graphs are checked, but not how the data file was made
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from flowc.build.compiled import Compiled, Request
from flowc.build.data import InPlace, Layout, plan
from flowc.build.manifest import SUFFIX, Manifest
from flowc.build.tokenizer_files import published_files
from flowc.compile import compile_spec
from flowc.errors import CheckFailed, FlowError, WeightsError
from flowc.frontend.state import Options
from flowc.ir.graph import Graph, Node, Value
from flowc.ir.weights.expressions import Derived, Read, Weight
from flowc.ir.weights.place import lies_in_graph
from flowc.spec.load import build as spec_of
from flowc.spec.spec import Spec
from flowc.text.source import MapNode, read_spec
from flowc.verify.built_model import BuiltModel

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Stored(Derived):
    """A weight as the build's data file holds it."""

    file: Path
    offset: int

    @property
    def operands(self) -> tuple[Weight, ...]:
        """None: nothing is computed from the original tensors."""
        return ()

    def spell(self) -> str:
        """The key of the weight that is stored."""
        return self.of.key

    def evaluate(self, read: Read) -> Array:
        """Read from the file, nothing computed."""
        with self.file.open("rb") as stream:
            stream.seek(self.offset)
            content = stream.read(self.of.nbytes)
        if len(content) != self.of.nbytes:
            message = f"{self.file} ends before the weight {self.key}"
            raise CheckFailed.of("changed-file", message)
        return np.frombuffer(content, np.dtype(self.dtype)).reshape(self.shape)


class StoredModel(BuiltModel):
    """A build without its original weights: held to the graphs after the passes, with the weights as stored."""

    def __init__(self, compiled: Compiled, files: Mapping[str, Path], layout: Layout) -> None:
        super().__init__(compiled, files, _no_read)
        folder = next(iter(files.values())).parent
        self._graphs: dict[str, Graph] = {
            p: _with_stored_weights(g, layout, folder) for p, g in compiled.graphs.items()
        }

    @property
    def graphs(self) -> Mapping[str, Graph]:
        """The graphs after the passes, reading their weights from the data file."""
        return {name: self._graphs[name] for name in self.compiled.graphs}

    @property
    def meanings(self) -> Mapping[str, Graph]:
        """The same: what a pass folded into a weight is not stored as it was before."""
        return self.graphs


def _no_read(name: str, rows: slice | None) -> Array:
    raise WeightsError.of("missing-weight", f"the original tensor '{name}' is not at hand")


def _with_stored_weights(graph: Graph, layout: Layout, folder: Path) -> Graph:
    def stored(value: Value | None) -> Value | None:
        if value is None or value.weight is None or lies_in_graph(value.weight):
            return value
        place = layout.places[value.weight.key]
        return Value(value.name, value.type, Stored(value.weight, folder / place.file, place.offset))

    nodes = tuple(Node(n.op, tuple(stored(v) for v in n.inputs), n.outputs, n.origin) for n in graph.nodes)
    return replace(graph, nodes=nodes)


def files_of(manifest: Manifest) -> dict[str, Path]:
    """The graph files of a build."""
    return {phase: manifest.folder / record.file for phase, record in manifest.graphs.items()}


def layout_of(compiled: Compiled, manifest: Manifest, in_place: InPlace | None = None) -> Layout:
    """Where each weight lies: in the data files of a build, or where it is used in place."""
    name = f"{manifest.path.name.removesuffix(SUFFIX)}.onnx.data"
    return plan(compiled.weights, name, in_place, shard_bytes=manifest.shard_bytes)


def recompile(manifest: Manifest, weights: Path | None = None) -> Compiled:
    """Compile the manifest's spec with its options. Without weights at hand the result has no checkpoint.

    Raises:
        CheckFailed: the manifest lacks what it takes, or the spec's hash is not the recorded one.
        WeightsError: the weights do not fit, or their sizes cannot be told without them.
    """
    raw = manifest.raw
    if not isinstance(raw.get("spec"), dict):
        raise CheckFailed.of("bad-manifest", f"{manifest.path} holds no spec, so its model cannot be verified")
    in_place = bool(manifest.in_place)
    options = Options(
        cast("Any", manifest.assume or "none"),
        cast("Any", manifest.logits),
        manifest.context,
        cast("Any", manifest.cache),
    )
    if weights is None and in_place:
        weights = _in_place(manifest)
    request = Request(
        weights, manifest.target, tuple(manifest.graphs), options, manifest.skip_passes, in_place, manifest.shard_bytes,
        manifest.dtype, manifest.islands,
    )  # fmt: skip
    try:
        compiled = compile_spec(_spec(manifest), request, need_weights=False, shapes=manifest.tensors)
    except WeightsError as error:
        raise _needs_weights(error, weights) from None
    if compiled.spec_sha256 != raw.get("spec_sha256"):
        raise CheckFailed.of("changed-file", f"the spec in {manifest.path} is not the one that its hash was taken of")
    compiled.beside = published_files(manifest.folder, [record.file for record in manifest.tokenizer])
    return compiled


def _spec(manifest: Manifest) -> Spec:
    """The spec in a manifest; what is wrong with it is told at its place there."""
    root = read_spec(manifest.path)
    node = root.get("spec") if isinstance(root, MapNode) else None
    assert node is not None, "the caller has seen it"
    spec = spec_of(node, manifest.path)
    # A spec that names no model is called like its file, which may have had another name than the build.
    named = isinstance(node, MapNode) and node.get("name") is not None
    return spec if named else replace(spec, name=manifest.name)


def _in_place(manifest: Manifest) -> Path:
    used = manifest.in_place
    return manifest.folder / used[0].file if len(used) == 1 else manifest.folder


def _needs_weights(error: FlowError, weights: Path | None) -> WeightsError:
    if weights is not None:
        return WeightsError(error.diagnostics)
    hint = "name the original weights: flowc verify MODEL --weights PATH"
    return WeightsError(replace(d, hint=d.hint or hint) for d in error.diagnostics)


def subject_of(manifest: Manifest, compiled: Compiled) -> BuiltModel:
    """The build under check, with the best reference that there is."""
    if compiled.checkpoint is not None:
        return BuiltModel(compiled, files_of(manifest))
    if not manifest.data:
        raise CheckFailed.of("bad-manifest", f"{manifest.path} names neither weights nor a data file")
    return StoredModel(compiled, files_of(manifest), layout_of(compiled, manifest))
