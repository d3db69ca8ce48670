"""File faults to plant: what disks, copies and hands do to the files of a build after it was written."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import onnx

Damage = Callable[[Path], None]


@dataclass(frozen=True, slots=True)
class FileFault:
    """A damage to the folder of a build."""

    name: str
    damage: Damage


def flipped(name: str, at: float, bit: int = 0, *, hidden: bool = False) -> Damage:
    """One bit of a file turned, `at` a share of its length; `hidden` puts the new hash into the manifest too."""

    def damage(folder: Path) -> None:
        path = folder / name
        content = bytearray(path.read_bytes())
        content[int(at * (len(content) - 1))] ^= 1 << bit
        path.write_bytes(content)
        if hidden:
            record(folder)

    return damage


def weight_flipped(tensor: str, bit: int) -> Damage:
    """One bit of a weight's first number turned, and the manifest's hash with it: only the numbers can tell."""

    def damage(folder: Path) -> None:
        offset = offset_of(folder / "model.onnx", tensor)
        content = bytearray((folder / "model.onnx.data").read_bytes())
        content[offset + bit // 8] ^= 1 << (bit % 8)
        (folder / "model.onnx.data").write_bytes(content)
        record(folder)

    return damage


def offset_of(graph: Path, tensor: str) -> int:
    """Where a graph's weight lies in the data file."""
    model = onnx.load(str(graph), load_external_data=False)
    (found,) = (t for t in model.graph.initializer if t.name == tensor)
    return int(next(e.value for e in found.external_data if e.key == "offset"))


def cut(name: str, keep: float, *, hidden: bool = False) -> Damage:
    """A file that ends early."""

    def damage(folder: Path) -> None:
        path = folder / name
        path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
        if hidden:
            record(folder)

    return damage


def grown(name: str) -> Damage:
    """A file with bytes after its end."""

    def damage(folder: Path) -> None:
        with (folder / name).open("ab") as file:
            file.write(b"\0" * 16)

    return damage


def removed(name: str) -> Damage:
    """A file that is gone."""
    return lambda folder: (folder / name).unlink()


def copied(source: str, target: str, *, hidden: bool = False) -> Damage:
    """One file's content under another's name."""

    def damage(folder: Path) -> None:
        shutil.copyfile(folder / source, folder / target)
        if hidden:
            record(folder)

    return damage


def tensors_swapped(a: str, b: str) -> Damage:
    """Two weights of one size in each other's place in the data file, hashes made to fit."""

    def damage(folder: Path) -> None:
        path = folder / "model.onnx.data"
        content = bytearray(path.read_bytes())
        first, second = (offset_of(folder / "model.onnx", name) for name in (a, b))
        size = 64 * 4
        content[first : first + size], content[second : second + size] = (
            content[second : second + size], content[first : first + size],
        )  # fmt: skip
        path.write_bytes(content)
        record(folder)

    return damage


def edited(name: str, edit: Callable[[Any], None]) -> Damage:
    """A graph file changed by hand, its hash in the manifest made to fit."""

    def damage(folder: Path) -> None:
        model = onnx.load(str(folder / name), load_external_data=False)
        edit(model)
        (folder / name).write_bytes(model.SerializeToString(deterministic=True))
        record(folder)

    return damage


def attribute(op: str, name: str, value: Any) -> Callable[[Any], None]:
    """Another value of an attribute of the first operator of a kind."""

    def edit(model: Any) -> None:
        node = next(n for n in model.graph.node if n.op_type == op)
        found = next(a for a in node.attribute if a.name == name)
        if isinstance(value, float):
            found.f = value
        else:
            found.i = value

    return edit


def offset_moved(model: Any) -> None:
    """The first external weight read one page further on."""
    tensor = next(t for t in model.graph.initializer if t.external_data)
    entry = next(e for e in tensor.external_data if e.key == "offset")
    entry.value = str(int(entry.value) + 4096)


def initializer_changed(model: Any) -> None:
    """A small constant inside of the graph with another value."""
    import numpy as np

    # Any number beyond the table does for the guard of negative ids: another one there is no fault.
    guards = {name for node in model.graph.node if node.name.endswith("NoNegative") for name in node.input}
    numbers = [t for t in model.graph.initializer if t.raw_data and t.data_type == onnx.TensorProto.INT64]
    tensor = next(t for t in numbers if t.name not in guards)
    tensor.raw_data = (np.frombuffer(tensor.raw_data, np.int64) + 1).tobytes()


def manifest_edited(edit: Callable[[dict[str, Any]], None]) -> Damage:
    """The manifest changed by hand."""

    def damage(folder: Path) -> None:
        path = folder / "model.flowc.json"
        manifest = json.loads(path.read_text())
        edit(manifest)
        path.write_text(json.dumps(manifest))

    return damage


def record(folder: Path) -> None:
    """Make the manifest's hashes those of the files that are there."""

    def fit(manifest: dict[str, Any]) -> None:
        for entry in [*manifest["graphs"].values(), *manifest["data"]]:
            path = folder / entry["file"]
            entry["sha256"] = sha256(path.read_bytes()).hexdigest()
            if "bytes" in entry:
                entry["bytes"] = path.stat().st_size

    manifest_edited(fit)(folder)


def _set(*path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def edit(manifest: dict[str, Any]) -> None:
        inner: Any = manifest
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value

    return edit


DATA, NORMS = "model.onnx.data", ("model.layers.0.input_layernorm.weight", "model.layers.1.input_layernorm.weight")

FILE_FAULTS = (
    FileFault("a bit at the start of the data file", flipped(DATA, 0.0)),
    FileFault("a bit in the middle of the data file", flipped(DATA, 0.5, 3)),
    FileFault("the last bit of the data file", flipped(DATA, 1.0, 7)),
    FileFault("the lowest bit of a weight, hash made to fit", weight_flipped(NORMS[0], 0)),
    FileFault("the sign of a weight, hash made to fit", weight_flipped(NORMS[0], 31)),
    FileFault("an exponent bit of a weight, hash made to fit", weight_flipped(NORMS[1], 25)),
    FileFault("two norms swapped, hash made to fit", tensors_swapped(*NORMS)),
    FileFault("the data file cut in half", cut(DATA, 0.5)),
    FileFault("the data file without its last byte", cut(DATA, 0.999999)),
    FileFault("the data file cut, hash made to fit", cut(DATA, 0.9, hidden=True)),
    FileFault("the data file longer", grown(DATA)),
    FileFault("the data file gone", removed(DATA)),
    FileFault("a bit of the unified graph", flipped("model.onnx", 0.4)),
    FileFault("a bit of the decode graph", flipped("model.decode.onnx", 0.6, 5)),
    FileFault("the prefill graph cut", cut("model.prefill.onnx", 0.7)),
    FileFault("the prefill graph gone", removed("model.prefill.onnx")),
    FileFault("decode under the name of prefill", copied("model.decode.onnx", "model.prefill.onnx")),
    FileFault("prefill as unified, hash made to fit", copied("model.prefill.onnx", "model.onnx", hidden=True)),
    FileFault(
        "epsilon in the file, hash made to fit", edited("model.onnx", attribute("RMSNormalization", "epsilon", 0.1))
    ),
    FileFault(
        "rope pairs in the file, hash made to fit",
        edited("model.prefill.onnx", attribute("RotaryEmbedding", "interleaved", 1)),
    ),
    FileFault("a weight's offset in the file, hash made to fit", edited("model.decode.onnx", offset_moved)),
    FileFault("a constant in the file, hash made to fit", edited("model.prefill.onnx", initializer_changed)),
    FileFault("the manifest's spec changed", manifest_edited(_set("spec", "model", "norm_eps", value=0.5))),
    FileFault("the manifest's target changed", manifest_edited(_set("target", value="portable"))),
    FileFault(
        "the manifest's hash of a graph changed", manifest_edited(_set("graphs", "decode", "sha256", value="0" * 64))
    ),
)
"""Every planted file fault."""
