"""The manifest `NAME.flowc.json` that a build writes beside its graphs, read back and checked.

    {"flowc": "0.1.0", "name": "tiny", "target": "ort-cpu", "assume": null, "kind": "decoder", "logits": "last",
     "graphs": {"unified": {"file": "model.onnx", "sha256": "…", "cache": "aligned"}, …},
     "data": [{"file": "model.onnx.data", "sha256": "…", "bytes": 123}],
     "tokenizer": [{"file": "tokenizer.json", "sha256": "…"}],
     "model": {"vocab": 32, "context_length": 64, "eos": [2], "bos": 1},
     "context": null, "cache": null, "skip_passes": [], "tensors": {"lm_head.weight": "32x16", …}}

Files are named by their bare name: everything of a model lies in one folder. A build with --in-place adds `in_place`,
the weights files that its graphs refer to; one of a sentence-transformers folder `text`, what is done to a text first:

     "text": {"prompt": "query: ", "lower_case": false, "max_tokens": 256, "prompts": {"query": "query: "}}

Keys that this page does not list are left alone.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from flowc.build.remembered import remembered_sha256, sha256_of
from flowc.errors import CheckFailed, Diagnostics, SpecError, WeightsError
from flowc.outside.reading import Unreadable, read_json, reason_of
from flowc.tokenizer.sentences import TextFacts

SUFFIX = ".flowc.json"
GRAPHS = ("unified", "prefill", "decode", "encode")
ASSUMPTIONS = (None, "right-padding", "no-padding")
CACHES = (None, "aligned", "static", "compact")
DTYPES = ("float32", "float16", "bfloat16")
"""Float types of a build, the first one when nothing is said."""
SIZES = ("vocab", "context_length", "context", "max_tokens")


def write_manifest(path: Path, manifest: Mapping[str, Any]) -> None:
    """Write a manifest's values as JSON."""
    path.write_text(json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


@dataclass(frozen=True, slots=True)
class FileRecord:
    """A file beside the manifest, with what it held when it was written."""

    file: str
    sha256: str
    bytes: int | None = None


@dataclass(frozen=True, slots=True)
class UsedInPlace:
    """A weights file that the graphs refer to where it lies, with what can be told of it without reading it all."""

    file: str
    header_sha256: str
    bytes: int
    modified_ns: int


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """What a caller of the model must know; `None` where the spec says nothing."""

    vocab: int | None
    context_length: int | None
    eos: tuple[int, ...]
    bos: int | None


@dataclass(frozen=True, slots=True)
class Manifest:
    """One built model: its graphs by phase, its weights file and its tokenizer files."""

    path: Path
    name: str
    target: str
    assume: str | None
    kind: str
    logits: str
    graphs: Mapping[str, FileRecord]
    data: tuple[FileRecord, ...]
    """The data files; none for a build whose weights are all used in place."""
    tokenizer: tuple[FileRecord, ...]
    model: ModelFacts
    context: int | None = None
    """The context length that the build asked for, or None for the model's own."""
    shard_bytes: int | None = None
    """Size above which the build put weights into another data file."""
    skip_passes: tuple[str, ...] = ()
    cache: str | None = None
    """The form of cache that the build asked for (--cache), or None."""
    dtype: str = "float32"
    """Float type of the weights, and of what the target computes in."""
    islands: tuple[str, ...] = ()
    """Patterns of the stages that compute in float32 all the same."""
    tensors: Mapping[str, tuple[int, ...]] | None = None
    """Shapes of the original weights, by name."""
    in_place: tuple[UsedInPlace, ...] = ()
    given: str | None = None
    """The graph whose file the user named, or None for the manifest itself."""
    text: TextFacts | None = None
    """What a sentence encoder does to a text before the tokenizer."""
    raw: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)
    """The whole JSON object."""

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
            raise SpecError.of(
                "missing-graph",
                f"'{self.name}' was built without a {graph} graph (it has: {built})",
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
        raw: Any = read_json(found)
    except (OSError, Unreadable) as error:
        raise SpecError.of("bad-manifest", f"cannot read {found}: {reason_of(error)}") from None
    manifest = _Reader(found).manifest(raw)
    if path.suffix == ".onnx":
        given = next((graph for graph, record in manifest.graphs.items() if record.file == path.name), None)
        if given is None:
            raise SpecError.of("not-a-model", f"{path} is not one of the graphs of {found.name}")
        return replace(manifest, given=given)
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
        without_graph = whole.rpartition(".")[0] if whole.rpartition(".")[2] in GRAPHS else ""
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


class _Reader:
    """Turns the JSON of a manifest into its dataclass, collecting everything that is wrong with it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.wrong = Diagnostics()

    def manifest(self, raw: object) -> Manifest:
        if not isinstance(raw, dict):
            raise SpecError.of("bad-manifest", f"{self.path} is not a JSON object")
        top = cast("dict[str, Any]", raw)
        graphs: dict[str, FileRecord] = {}
        for graph, record in self.mapping(top, "graphs").items():
            if graph not in GRAPHS:
                self.error(f"graphs: '{graph}' is not one of {', '.join(GRAPHS)}")
            graphs[graph] = self.record(record, f"graphs.{graph}")
        if not graphs:
            self.error("graphs: names no graph")
        model = self.mapping(top, "model")
        manifest = Manifest(
            path=self.path,
            name=self.choice(top, "name", None),
            target=self.choice(top, "target", None),
            assume=self.choice(top, "assume", ASSUMPTIONS),
            kind=self.choice(top, "kind", ("decoder", "encoder")),
            logits=self.choice(top, "logits", ("last", "all", None)) or "last",
            graphs=graphs,
            data=self.data_files(top),
            tokenizer=tuple(self.record(record, where) for where, record in self.items(top, "tokenizer")),
            model=ModelFacts(
                vocab=self.integer(model, "vocab", "model."),
                context_length=self.integer(model, "context_length", "model."),
                eos=self.integers(model, "eos"),
                bos=self.integer(model, "bos", "model."),
            ),
            context=self.integer(top, "context"),
            shard_bytes=self.integer(top, "shard_bytes"),
            cache=self.choice(top, "cache", CACHES),
            dtype=self.choice(top, "dtype", (*DTYPES, None)) or DTYPES[0],
            islands=tuple(self.text(name, where) for where, name in self.items(top, "islands")),
            skip_passes=tuple(self.text(name, where) for where, name in self.items(top, "skip_passes")),
            tensors=self.shapes(top, "tensors"),
            in_place=tuple(self.used_in_place(seen, where) for where, seen in self.items(top, "in_place")),
            text=None if top.get("text") is None else self.text_facts(self.mapping(top, "text")),
            raw=top,
        )
        self.wrong.raise_if_any()
        return manifest

    def data_files(self, top: dict[str, Any]) -> tuple[FileRecord, ...]:
        if isinstance(top.get("data"), dict):  # one file, as manifests had it before there could be several
            return (self.record(top["data"], "data"),)
        return tuple(self.record(record, where) for where, record in self.items(top, "data"))

    def text_facts(self, found: dict[str, Any]) -> TextFacts:
        prompts: Any = found.get("prompts") or {}
        if not isinstance(prompts, dict):
            self.error("text.prompts: is not an object")
            prompts = {}
        named = {str(k): self.text(v, f"text.prompts.{k}") for k, v in cast("dict[str, Any]", prompts).items()}
        lower = found.get("lower_case", False)
        if not isinstance(lower, bool):
            self.error("text.lower_case: is not true or false")
        prompt = self.text(found.get("prompt", ""), "text.prompt")
        return TextFacts(prompt, lower is True, self.integer(found, "max_tokens", "text."), named)

    def error(self, message: str) -> None:
        self.wrong.error("bad-manifest", f"{self.path}: {message}")

    def mapping(self, parent: dict[str, Any], key: str) -> dict[str, Any]:
        value = parent.get(key)
        if not isinstance(value, dict):
            self.error(f"{key}: is not an object")
            return {}
        return cast("dict[str, Any]", value)

    def items(self, parent: dict[str, Any], key: str) -> list[tuple[str, object]]:
        """Entries of a list, each with the place that an error names; none where there is no list."""
        value = parent.get(key)
        if value is not None and not isinstance(value, list):
            self.error(f"{key}: is not a list")
        entries = cast("list[object]", value) if isinstance(value, list) else []
        return [(f"{key}[{i}]", entry) for i, entry in enumerate(entries)]

    def text(self, value: object, where: str) -> str:
        if not isinstance(value, str):
            self.error(f"{where}: is not a text")
        return str(value)

    def shapes(self, parent: dict[str, Any], key: str) -> dict[str, tuple[int, ...]] | None:
        if parent.get(key) is None:
            return None
        shapes: dict[str, tuple[int, ...]] = {}
        for name, text in self.mapping(parent, key).items():
            sizes = text.split("x") if isinstance(text, str) and text else []
            if isinstance(text, str) and all(size.isdecimal() and len(size) < 16 for size in sizes):
                shapes[name] = tuple(map(int, sizes))
            else:
                self.error(f"{key}: '{name}' has no shape such as 576x1536")
        return shapes

    def file_name(self, entry: dict[str, Any], where: str) -> str:
        file = entry.get("file")
        if isinstance(file, str) and file not in ("", ".", "..") and Path(file).name == file and file.isprintable():
            return file
        self.error(f"{where}: 'file' is not a bare file name")
        return ""

    def used_in_place(self, value: object, where: str) -> UsedInPlace:
        entry = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
        size, modified = (self.integer(entry, key, f"{where}.") for key in ("bytes", "modified_ns"))
        header = self.text(entry.get("header_sha256"), f"{where}.header_sha256")
        return UsedInPlace(self.file_name(entry, where), header, size or 0, modified or 0)

    def record(self, value: object, where: str) -> FileRecord:
        entry = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
        file, sha256, size = self.file_name(entry, where), entry.get("sha256"), entry.get("bytes")
        if sha256 is not None and not isinstance(sha256, str):
            self.error(f"{where}: 'sha256' is not a text")
        if size is not None and not isinstance(size, int):
            self.error(f"{where}: 'bytes' is not a number")
        return FileRecord(file, str(sha256 or ""), size if isinstance(size, int) else None)

    def choice(self, parent: dict[str, Any], key: str, allowed: tuple[str | None, ...] | None) -> Any:
        value = parent.get(key)
        if allowed is None:
            if not isinstance(value, str):
                self.error(f"{key}: is not a text")
        elif value not in allowed:
            self.error(f"{key}: {value!r} is not one of {', '.join(str(a) for a in allowed if a)}")
        return value

    def integer(self, parent: dict[str, Any], key: str, above: str = "") -> int | None:
        value = parent.get(key)
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            self.error(f"{above}{key}: {value!r} is not an integer")
            return None
        if key in SIZES and value is not None and value < 1:
            self.error(f"{above}{key}: {value} is not greater than 0")
        return value

    def integers(self, parent: dict[str, Any], key: str) -> tuple[int, ...]:
        value: Any = parent.get(key)
        if value is None:
            return ()
        found = cast("list[object]", value if isinstance(value, list) else [value])
        if not all(isinstance(i, int) and not isinstance(i, bool) for i in found):
            self.error(f"model.{key}: {value!r} is not a list of integers")
            return ()
        return tuple(cast("list[int]", found))
