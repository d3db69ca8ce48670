"""The manifest `NAME.flowc.json` that a build writes beside its graphs, read back and checked.

    {"flowc": "0.1.0", "name": "tiny", "target": "ort-cpu", "assume": null, "kind": "decoder", "logits": "last",
     "graphs": {"unified": {"file": "model.onnx", "sha256": "…", "cache": "aligned"}, …},
     "data": [{"file": "model.onnx.data", "sha256": "…", "bytes": 123}],
     "tokenizer": [{"file": "tokenizer.json", "sha256": "…"}],
     "model": {"vocab": 32, "context_length": 64, "eos": [2], "bos": 1},
     "context": null, "cache": null, "skip_passes": [], "tensors": {"lm_head.weight": "32x16", …}}

`Manifest` declares all of its keys, and docs/files.md lists them. Files are named by their bare name: everything of a
model lies in one folder. Keys that are not declared are left alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

from flowc.build.manifest_keys import LARGEST_NUMBER, ComponentRecord, FileRecord, ModelFacts, UsedInPlace
from flowc.build.remembered import remembered_sha256, sha256_of
from flowc.errors import CheckFailed, SpecError, WeightsError
from flowc.ir.phases import PHASES, Kind, kind_of
from flowc.outside.reading import MAX_SIDE_FILE, Unreadable, read_bytes, reason_of
from flowc.records.declare import Form, attr, named_by
from flowc.records.json_file import read_json_record
from flowc.records.record import Record
from flowc.tokenizer.sentences import TextFacts

SUFFIX = ".flowc.json"
_SIZES = re.compile(r"([0-9]{1,15}(x[0-9]{1,15})*)?")


def _shape(text: str, _: Any) -> tuple[int, ...] | None:
    return tuple(int(size) for size in text.split("x") if size) if _SIZES.fullmatch(text) else None


_GRAPH = named_by(re.compile(r"[a-z][a-z0-9_]*"), "the name of a graph")
SHAPE = Form("sizes such as 576x1536", _shape, f"^{_SIZES.pattern}$")


def write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Write a manifest's values as JSON."""
    path.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


class Manifest(Record):
    """One built model: its graphs by phase, its weights file and its tokenizer files."""

    what = "a manifest"
    flowc: str = attr(doc="Version of flowc that built the model.", default="")
    name: str = attr(doc="Name of the model.")
    kind: Kind = attr(doc="What the graphs are of.")
    target: str = attr(doc="What the model was built for.")
    assume: Literal["right-padding", "no-padding"] | None = attr(
        doc="What the graphs take for granted (--assume).", default=None
    )
    logits: Literal["last", "all"] = attr(doc="Positions whose logits a decoder gives.", default="last")
    context: int | None = attr(
        doc="The context length that the build asked for; null for the model's own.", default=None, ge=1,
        le=LARGEST_NUMBER,
    )  # fmt: skip
    cache: Literal["aligned", "static", "compact"] | None = attr(
        doc="The form of cache that the build asked for (--cache).", default=None
    )
    dtype: Literal["float32", "float16", "bfloat16"] = attr(
        doc="Float type of the weights, and of what the target computes in.", default="float32"
    )
    islands: tuple[str, ...] = attr(doc="Patterns of the stages that compute in float32 all the same.", default=())
    skip_passes: tuple[str, ...] = attr(doc="Passes that the build left out.", default=())
    shard_bytes: int | None = attr(
        doc="Size above which the build put weights into another data file.", default=None, ge=1, le=LARGEST_NUMBER
    )
    passes: tuple[str, ...] = attr(doc="Passes that ran.", default=())
    verify: str = attr(doc="How the build was checked (--verify).", default="")
    checks: tuple[str, ...] = attr(doc="The checks that it passed.", default=())
    spec_sha256: str = attr(doc="Hash of the spec.", default="")
    spec: object = attr(doc="The spec, without the path of its weights: verify compiles it again.", default=None)
    versions: Mapping[str, str] = attr(doc="Versions of the libraries that wrote the graphs.", default={})
    min_onnxruntime: str = attr(doc="The first onnxruntime that runs the graphs.", default="")
    tensors: Mapping[str, tuple[int, ...]] | None = attr(
        doc="Shapes of the original weights, by name.", default=None, form=SHAPE, each="the shape of '{key}'",
    )  # fmt: skip
    model: ModelFacts = attr(doc="What a caller of the model must know.")
    text: TextFacts | None = attr(doc="What a sentence encoder does to a text before the tokenizer.", default=None)
    graphs: Mapping[str, FileRecord] = attr(
        doc="The graph files by phase, or by component beside the main one.", least=1, keys=_GRAPH
    )
    components: Mapping[str, ComponentRecord] = attr(
        doc="The components of a model of several, in their order; the last one is the model's own.", default={}
    )
    data: tuple[FileRecord, ...] = attr(
        doc="The data files; none for a build whose weights are all used in place.", default=(), alone=True
    )
    in_place: tuple[UsedInPlace, ...] = attr(
        doc="Weights files that the graphs refer to where they lie (--in-place).", default=()
    )
    tokenizer: tuple[FileRecord, ...] = attr(doc="The tokenizer's files.", default=())

    path: Path
    given: str | None = None
    """The graph whose file the user named, or None for the manifest itself."""
    raw: Mapping[str, Any] = {}
    """The whole JSON object."""

    @property
    def generates(self) -> bool:
        """Whether it makes token after token, over a cache."""
        return self.kind == kind_of(cache=True)

    @property
    def folder(self) -> Path:
        """Where all files of the model lie."""
        return self.path.parent

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file of the model, the manifest and weights used in place among them; not all need be there."""
        records = [*self.graphs.values(), *self.data, *self.tokenizer, *self.in_place]
        return (self.path, *(self.folder / record.file for record in records))

    def graph_path(self, graph: str) -> Path:
        """Path of a graph's file, checked against its recorded hash.

        Raises:
            SpecError: the model was built without this graph.
            CheckFailed: the file is missing or is not the one that the build wrote.
            WeightsError: the weights file beside it is missing or damaged, or weights used in place changed.
        """
        record = self.graphs.get(graph)
        if record is None:
            built = ", ".join(self.graphs)
            article = "an" if graph[0] in "aeio" else "a"
            raise SpecError.of(
                "missing-graph",
                f"'{self.name}' was built without {article} {graph} graph (it has: {built})",
                hint=f"build it with --graph {graph} among the others",
            )
        path = self.folder / record.file
        if not path.is_file():
            raise CheckFailed.of("missing-file", f"{path} is named in {self.path.name} but is not there")
        _check_hash(path, record)
        self._check_data()
        return path

    def tokenizer_file(self, name: str) -> Path | None:
        """Path of a tokenizer file by its usual name (`tokenizer.json`), also as `PREFIX.tokenizer.json`; else None.

        Raises:
            CheckFailed: the file is not the one that the build wrote.
        """
        for record in self.tokenizer:
            if record.file == name or record.file.endswith("." + name):
                path = self.folder / record.file
                if path.is_file():
                    _check_hash(path, record)
                return path
        return None

    def check_files(self) -> None:
        """Every file of the model is the one that the build wrote; raises what `graph_path` and `tokenizer_file` do."""
        for graph in self.graphs:
            self.graph_path(graph)
        for record in self.tokenizer:
            if not (self.folder / record.file).is_file():
                message = f"{self.folder / record.file} is named in {self.path.name} but is not there"
                raise CheckFailed.of("missing-file", message)
            _check_hash(self.folder / record.file, record)

    def _check_used_in_place(self) -> None:
        """Weights that the build left where they lay are the ones it saw, as far as size and time of change tell."""
        for seen in self.in_place:
            path = self.folder / seen.file
            if not path.is_file():
                raise WeightsError.of("missing-file", f"the weights file {path}, used in place, is not there")
            found = path.stat()
            if (found.st_size, found.st_mtime_ns) != (seen.bytes, seen.modified_ns):
                raise WeightsError.of(
                    "changed-file",
                    f"the weights file {path}, used in place, was written since the model was built",
                    hint="build the model again; copies keep their time of change with cp -p",
                )

    def _check_data(self) -> None:
        self._check_used_in_place()
        for data in self.data:
            path = self.folder / data.file
            if not path.is_file():
                raise WeightsError.of("missing-file", f"the weights file {path} is not there")
            size = path.stat().st_size
            if data.bytes is not None and size != data.bytes:
                raise WeightsError.of(
                    "changed-file", f"the weights file {path} has {size} bytes; the build wrote {data.bytes}"
                )
            try:
                changed = data.sha256 and remembered_sha256(path) != data.sha256
            except OSError as error:
                message = f"cannot read the weights file {path}: {reason_of(error)}"
                raise WeightsError.of("unreadable-file", message) from None
            if changed:
                raise WeightsError.of(
                    "changed-file", f"the weights file {path} does not hold what the build wrote",
                    hint="build the model again, or bring back the file that belongs to this manifest",
                )  # fmt: skip


LARGEST = 2 << 30
"""Bytes of a graph or a tokenizer's file: what a protobuf may have. Weights lie in a data file of their own."""


def _check_hash(path: Path, record: FileRecord) -> None:
    if path.stat().st_size > LARGEST:
        message = f"{path} is not the file that flowc wrote: it has {path.stat().st_size} bytes"
        raise CheckFailed.of("changed-file", message)
    found = sha256_of(path)
    if found != record.sha256:
        raise CheckFailed.of(
            "changed-file",
            f"{path} is not the file that flowc wrote: sha256 {found[:12]}…, recorded {record.sha256[:12]}…",
            hint="build the model again, or bring back the file that belongs to this manifest",
        )


def load(path: str | Path) -> Manifest:
    """Read the manifest of a model, given the manifest, its folder, or any graph file beside it.

    Raises:
        SpecError: the path is not a model that flowc built, or its manifest is broken (all that is wrong, at once).
    """
    path = Path(path)
    found = _manifest_of(path)
    try:
        read, raw = read_json_record(Manifest, read_bytes(found, MAX_SIDE_FILE), str(found), "bad-manifest")
    except (OSError, Unreadable) as error:
        raise SpecError.of("bad-manifest", f"cannot read {found}: {reason_of(error)}") from None
    manifest = read.record(path=found, raw=cast("dict[str, Any]", raw))
    known = [*PHASES, *(graph for component in manifest.components.values() for graph in component.graphs)]
    for graph in manifest.graphs:
        if graph not in known:
            hint = f"graphs: {', '.join(dict.fromkeys(known))}"
            raise SpecError.of("bad-manifest", f"{found}: there is no graph '{graph}'", hint=hint)
    if path.suffix == ".onnx":
        given = next((graph for graph, record in manifest.graphs.items() if record.file == path.name), None)
        if given is None:
            raise SpecError.of("not-a-model", f"{path} is not one of the graphs of {found.name}")
        return manifest.but(given=given)
    return manifest


def _manifest_of(path: Path) -> Path:
    if path.is_dir():
        inside = sorted(path.glob("*" + SUFFIX))
        if len(inside) == 1:
            return inside[0]
        what = "no model" if not inside else f"{len(inside)} models"
        raise SpecError.of("not-a-model", f"{path} holds {what}", hint="name a file such as out/model.onnx")
    if path.name.endswith(SUFFIX) and path.is_file():
        return path
    if path.suffix == ".onnx":
        whole = path.name.removesuffix(".onnx")
        without_graph = whole.rpartition(".")[0]
        for stem in filter(None, (whole, without_graph)):
            candidate = path.with_name(stem + SUFFIX)
            if candidate.is_file():
                return candidate
        if path.exists():
            raise SpecError.of(
                "not-a-model",
                f"{path} has no manifest ({whole}{SUFFIX}) beside it",
                hint="flowc runs the models that `flowc build` wrote",
            )
    if not path.exists():
        raise SpecError.of("not-a-model", f"{path} does not exist")
    raise SpecError.of(
        "not-a-model", f"{path} is not a model that flowc built", hint="name a file such as out/model.onnx"
    )
