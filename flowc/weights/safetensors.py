"""Safetensors: one file, or shards with an index.

The header is parsed here and not by the `safetensors` library because `--in-place` needs every tensor's offset in
its file, and because a file that shrinks must not kill the process (the library maps it). The rules are those of
the format's own description: 8 bytes header length, a JSON object, then the tensors' bytes, which lie one after
the other without holes or overlaps up to the end of the file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TypeGuard, cast

from flowc.errors import Diagnostics, FlowError, WeightsError, nearest
from flowc.weights.checkpoint import Array, TensorInfo, find, row_range
from flowc.weights.files import SourceFile
from flowc.weights.storage import STORAGES, read_plain

MAX_HEADER = 100_000_000  # bytes, the limit of the format
_MAX_REPORTED = 20
_MAX_DIMS = 64  # numpy's limit


class SafetensorsCheckpoint:
    """One or several safetensors files as one set of tensors."""

    def __init__(self, tensors: Mapping[str, TensorInfo], files: Mapping[Path, SourceFile]) -> None:
        self._tensors = MappingProxyType(dict(tensors))
        self._files = dict(files)

    @classmethod
    def open(cls, path: Path) -> SafetensorsCheckpoint:
        """A single file. WeightsError `broken-safetensors`, or as `SourceFile`."""
        file = SourceFile.open(path)
        return cls(read_header(file), {path: file})

    @classmethod
    def open_index(cls, path: Path) -> SafetensorsCheckpoint:
        """The shards that a `*.safetensors.index.json` names, all in its own folder.

        WeightsError `broken-index` when a shard, or a tensor in it, is not where the index says; else as `open`.
        """
        shards = _shards(path)
        found = Diagnostics()
        tensors: dict[str, TensorInfo] = {}
        files: dict[Path, SourceFile] = {}
        missing: list[tuple[str, str]] = []
        for shard, expected in shards.items():
            where = path.parent / shard
            try:
                files[where] = SourceFile.open(where)
                header = read_header(files[where])
            except FlowError as error:
                found.include(error)
                continue
            missing += [(shard, name) for name in expected if name not in header]
            for name, info in header.items():
                if name in tensors:
                    message = f"tensor '{name}' lies in '{shard}' and in another shard"
                    found.error("broken-index", message, kind=WeightsError)
                tensors[name] = info
        for shard, name in missing:
            elsewhere = tensors[name].path if name in tensors else None
            hint = f"it lies in '{elsewhere.name}'" if elsewhere is not None else nearest(name, tensors)
            message = f"'{path.name}' says that '{shard}' holds '{name}', which it does not"
            found.error("broken-index", message, hint=hint, kind=WeightsError)
        found.raise_if_any()
        return cls(tensors, files)

    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by name."""
        return self._tensors

    def read(self, name: str, rows: slice | None = None) -> Array:
        """See `Checkpoint.read`."""
        info = find(self._tensors, name)
        begin, end = row_range(rows, info.shape)
        inner = info.shape[1:]
        row = math.prod(inner)
        assert info.path is not None
        offset = info.offset + begin * row * STORAGES[info.storage].bits // 8
        flat = read_plain(self._files[info.path], offset, info.storage, (end - begin) * row, name)
        return flat.reshape((end - begin, *inner) if info.shape else ())

    def files(self) -> tuple[Path, ...]:
        """The shards, in the order of the index."""
        return tuple(self._files)

    def describe(self) -> str:
        """Format, number of files and tensors."""
        count = len(self._files)
        return f"safetensors, {count} file{'s' if count > 1 else ''}, {len(self._tensors)} tensors"


def read_header(file: SourceFile) -> dict[str, TensorInfo]:
    """The tensors that a safetensors file announces, checked against the format and the file's size.

    WeightsError `broken-safetensors`, with up to 20 faults at once.
    """
    if file.size < 8:
        raise _broken(file, f"has {file.size} bytes, too few for a header")
    length = int.from_bytes(file.read(0, 8).tobytes(), "little")
    if length > MAX_HEADER:
        raise _broken(file, f"announces a header of {length} bytes; the format allows {MAX_HEADER}")
    start = 8 + length
    if start > file.size:
        raise _broken(file, f"announces a header of {length} bytes, but ends after {file.size}")
    found = Diagnostics()
    faults = 0
    tensors: dict[str, TensorInfo] = {}
    for name, entry in _parse(file, file.read(8, length).tobytes()).items():
        try:
            if name == "__metadata__":
                _check_metadata(file, entry)
            else:
                tensors[name] = _tensor(file, name, entry, start)
        except FlowError as error:
            found.include(error)
            faults += 1
            if faults == _MAX_REPORTED:
                break
    found.raise_if_any()
    _check_layout(file, tensors, start)
    return tensors


def _parse(file: SourceFile, data: bytes) -> dict[str, object]:
    # An entry takes at least 46 bytes and opens 3 brackets: many more are a memory bomb, not a header.
    if (data.count(b"[") + data.count(b"{")) * 8 > len(data) + 1024:
        raise _broken(file, "has a header that is not a list of tensors")
    try:
        return json_object(data)
    except ValueError as error:
        raise _broken(file, f"has a header that is not a JSON object: {error}") from None


def _check_metadata(file: SourceFile, entry: object) -> None:
    if not isinstance(entry, dict) or not all(isinstance(v, str) for v in cast("dict[str, object]", entry).values()):
        raise _broken(file, "has '__metadata__' that is not a map of strings")


def _tensor(file: SourceFile, name: str, entry: object, start: int) -> TensorInfo:
    fields = cast("dict[str, object]", entry) if isinstance(entry, dict) else {}
    if set(fields) != {"dtype", "shape", "data_offsets"}:
        raise _broken(file, f"describes tensor '{name}' by something else than dtype, shape and data_offsets")
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    storage = dtype.lower() if isinstance(dtype, str) else ""
    if storage not in STORAGES or dtype != storage.upper():
        raise _broken(file, f"gives tensor '{name}' the unknown dtype {json.dumps(dtype)[:80]}")
    if not _are_counts(shape):
        raise _broken(file, f"gives tensor '{name}' a shape that is not a list of whole numbers")
    if not _are_counts(offsets) or len(offsets) != 2:
        raise _broken(file, f"gives tensor '{name}' data_offsets that are not two whole numbers")
    begin, end = offsets
    if not begin <= end <= file.size - start:
        where = f"bytes {begin} to {end} of {file.size - start}"
        raise _broken(file, f"places tensor '{name}' outside of its data: {where}", "is the file cut short?")
    bits = math.prod(shape) * STORAGES[storage].bits
    if (end - begin) * 8 != bits:
        raise _broken(file, f"gives tensor '{name}' {end - begin} bytes, but {dtype} {shape} takes {bits / 8:.15g}")
    return TensorInfo(name, tuple(shape), storage, file.path, start + begin, end - begin, plain=True)


def _are_counts(value: object) -> TypeGuard[list[int]]:
    if not isinstance(value, list):
        return False
    items = cast("list[object]", value)
    return len(items) <= _MAX_DIMS and all(type(item) is int and 0 <= item < 1 << 63 for item in items)


def _check_layout(file: SourceFile, tensors: Mapping[str, TensorInfo], start: int) -> None:
    end, last = start, ""
    for info in sorted(tensors.values(), key=lambda t: (t.offset, t.offset + t.nbytes)):
        if info.offset < end:
            raise _broken(file, f"lets tensors '{last}' and '{info.name}' overlap")
        if info.offset > end:
            raise _broken(file, f"has {info.offset - end} bytes before tensor '{info.name}' that belong to no tensor")
        end, last = info.offset + info.nbytes, info.name
    if end != file.size:
        raise _broken(file, f"has {file.size - end} bytes at its end that belong to no tensor")


def _broken(file: SourceFile, fault: str, hint: str = "") -> FlowError:
    return WeightsError.of("broken-safetensors", f"'{file.path}' {fault}", hint=hint)


def _shards(path: Path) -> dict[str, list[str]]:
    """Tensor names by shard, in the order of the index."""

    def broken(fault: str, hint: str = "") -> FlowError:
        return WeightsError.of("broken-index", f"'{path}' {fault}", hint=hint)

    file = SourceFile.open(path)
    if file.size > MAX_HEADER:
        raise broken(f"has {file.size} bytes, too many for an index")
    try:
        weight_map = json_object(file.read(0, file.size).tobytes()).get("weight_map")
    except ValueError as error:
        raise broken(f"is not a JSON object: {error}") from None
    if not isinstance(weight_map, dict) or not weight_map:
        raise broken("has no 'weight_map'")
    shards: dict[str, list[str]] = {}
    for name, shard in cast("dict[str, object]", weight_map).items():
        if not isinstance(shard, str) or not shard.endswith(".safetensors"):
            raise broken(f"places '{name}' in {json.dumps(shard)[:80]}, which is not a safetensors file")
        if any(c in shard for c in "/\\:\0"):
            raise broken(f"names the shard '{shard}'", "shards lie in the folder of their index")
        shards.setdefault(shard, []).append(name)
    return shards


def json_object(data: bytes) -> dict[str, object]:
    """Strict JSON: UTF-8, an object, no key twice, no lone surrogates. ValueError says what is wrong."""
    try:
        value: object = json.loads(data.decode("utf-8"), object_pairs_hook=_without_duplicates)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError("it is something else")
    return cast("dict[str, object]", value)


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))
        raise ValueError(f"it has the key '{twice}' twice")
    for key in result:
        key.encode("utf-8")  # a UnicodeEncodeError is a ValueError
    return result
