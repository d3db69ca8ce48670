"""The data files: where every weight lies, and writing them as a stream.

They serve all graphs of a build: one file, or several of at most a stated size. A packed weight is stored once; a graph
that wants a part of its rows reads them where they lie. Nothing is held in memory beyond a piece of the tensor being
written, or that tensor where it cannot be made by rows.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from flowc.ir.weights.bundle import Bundle, Member
from flowc.ir.weights.expressions import Array, Cast, Concat, Read, Rows, Tensor, Weight
from flowc.ir.weights.place import Place, lies_in_graph

ALIGNMENT = 4096
PIECE = 8 << 20
"""Bytes of a weight that are made and written at a time, where it can be made by rows."""


@dataclass(slots=True)
class DataFile:
    """One data file: its weights in file order with their offsets, and its size in bytes."""

    name: str
    stored: list[tuple[int, Weight]] = field(default_factory=list[tuple[int, Weight]])
    size: int = 0


@dataclass(slots=True)
class Layout:
    """Places of all weights (by key), and the files that hold those that no checkpoint file holds."""

    places: dict[str, Place] = field(default_factory=dict[str, Place])
    files: list[DataFile] = field(default_factory=list[DataFile])

    @property
    def size(self) -> int:
        """Bytes of all data files."""
        return sum(file.size for file in self.files)

    @property
    def stored(self) -> Iterator[tuple[Place, Weight]]:
        """Every weight that a data file holds, and where."""
        return ((Place(f.name, offset), weight) for f in self.files for offset, weight in f.stored)


InPlace = Callable[[Weight], Place | None]
"""Where a weight already lies in the checkpoint, if it may be read there."""


def plan(
    weights: Iterable[Weight], file: str, in_place: InPlace | None = None, *, shard_bytes: int | None = None
) -> Layout:
    """Give every weight its place: in the checkpoint, inside a packed weight, or in a data file.

    With `shard_bytes` the data files are `<file>-00001-of-0000N`, none larger unless a single weight is; members of a
    bundle stay together.
    """
    layout = Layout()
    unique: dict[str, Weight] = {}
    for weight in weights:
        if not lies_in_graph(weight):
            unique.setdefault(weight.key, weight)
    if in_place is not None:
        for key, weight in unique.items():
            place = in_place(weight)
            if place is not None:
                layout.places[key] = place
    left = [w for k, w in unique.items() if k not in layout.places]
    parts = _parts(left)
    shards = _shards(_units([w for w in left if w.key not in parts]), shard_bytes)
    for number, units in enumerate(shards, 1):
        data = DataFile(file if shard_bytes is None else f"{file}-{number:05d}-of-{len(shards):05d}")
        layout.files.append(data)
        for weight in (w for unit in units for w in unit):
            offset = _aligned(data.size)
            data.stored.append((offset, weight))
            data.size = offset + weight.nbytes
            layout.places[weight.key] = Place(data.name, offset)
    for weight in left:
        _resolve(weight.key, parts, layout)
    return layout


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT


def _units(weights: list[Weight]) -> list[list[Weight]]:
    """What must lie in one file, in order of first use: one weight, or all members of a bundle."""
    units: dict[str, list[Weight]] = {}
    for weight in weights:
        units.setdefault(weight.bundle.key if isinstance(weight, Member) else weight.key, []).append(weight)
    return list(units.values())


def _shards(units: list[list[Weight]], most: int | None) -> list[list[list[Weight]]]:
    """Units file by file; a file ends where the next unit would make it larger than `most` bytes."""
    shards: list[list[list[Weight]]] = []
    size = 0
    for unit in units:
        needed = sum(_aligned(weight.nbytes) for weight in unit)
        if not shards or (most is not None and size + needed > most and size > 0):
            shards.append([])
            size = 0
        shards[-1].append(unit)
        size += needed
    return shards


def _resolve(key: str, parts: Mapping[str, tuple[str, int]], layout: Layout) -> Place:
    """The place of a weight; a part lies in its whole, which may be a part itself."""
    if key not in layout.places:
        whole, start = parts[key]
        base = _resolve(whole, parts, layout)
        layout.places[key] = Place(base.file, base.offset + start)
    return layout.places[key]


def _parts(weights: list[Weight]) -> dict[str, tuple[str, int]]:
    """Weights that are rows of another weight of the list: the other's key, and the byte where they start."""
    keys = {w.key for w in weights}
    found: dict[str, tuple[str, int]] = {}
    for weight in weights:
        if isinstance(weight, Concat):
            start = 0
            for part in weight.parts:
                if part.key in keys:
                    found.setdefault(part.key, (weight.key, start))
                start += part.nbytes
    for weight in weights:
        if isinstance(weight, Rows) and weight.of.key in keys:
            row = weight.nbytes // weight.shape[0]
            whole, start = found.get(weight.of.key, (weight.of.key, 0))
            found.setdefault(weight.key, (whole, start + weight.start * row))
    return found


def write(
    layout: Layout,
    folder: Path,
    read: Read,
    check: Callable[[Array, Weight, int], None],
    progress: Callable[[int], None] | None = None,
) -> dict[str, str]:
    """Write all data files; returns the sha256 (hex) of each by its name.

    `check` sees every piece before it is written, with the row that it starts at.
    """
    done = 0
    digests: dict[str, str] = {}
    for data in layout.files:
        hasher = _Hasher()
        try:
            with (folder / data.name).open("wb") as file:
                position = 0
                for (offset, weight), made in zip(data.stored, _made(data, read), strict=True):
                    if gap := bytes(offset - position):
                        file.write(gap)
                        hasher.update(gap)
                    for row, piece in made:
                        check(piece, weight, row)
                        chunk = piece.reshape(-1).view(np.uint8).data
                        if len(chunk):
                            file.write(chunk)
                            hasher.update(chunk)
                        if progress is not None:
                            progress(done + file.tell())
                    position = offset + weight.nbytes
            done += data.size
        finally:
            digests[data.name] = hasher.finish()
    return digests


def _made(data: DataFile, read: Read) -> Iterator[Iterator[tuple[int, Array]]]:
    """Each weight of a file as pieces with the row that they start at; a bundle is made once for its members."""
    bundle: Bundle | None = None
    values: Mapping[str, Array] = {}
    for _, weight in data.stored:
        if not isinstance(weight, Member):
            bundle, values = None, {}
            yield pieces(weight, read)
            continue
        if bundle is None or bundle.key != weight.bundle.key:
            bundle, values = weight.bundle, {}
            values = weight.bundle.make(read)
        yield iter([(0, weight.of(values))])


def pieces(weight: Weight, read: Read) -> Iterator[tuple[int, Array]]:
    """A weight's values in ranges of rows of about `PIECE` bytes, with the first row of each; whole where they must."""
    if not weight.by_rows or weight.nbytes <= PIECE:
        yield 0, weight.evaluate(read)
        return
    step = max(1, PIECE * weight.shape[0] // weight.nbytes)
    for start in range(0, weight.shape[0], step):
        yield start, weight.rows(read, start, min(start + step, weight.shape[0]))


class _Hasher:
    """sha256 on a thread of its own, so that hashing overlaps with writing."""

    def __init__(self) -> None:
        self._sha = hashlib.sha256()
        self._chunks: queue.Queue[Any] = queue.Queue(maxsize=2)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while (chunk := self._chunks.get()) is not None:
            self._sha.update(chunk)

    def update(self, chunk: Any) -> None:
        self._chunks.put(chunk)

    def finish(self) -> str:
        self._chunks.put(None)
        self._thread.join()
        return self._sha.hexdigest()


def in_place_reader(locate: Callable[[str], tuple[str, int, int] | None], dtype: str = "float32") -> InPlace:
    """Finds plain tensors, and rows of them, in the checkpoint; `locate` gives file name, offset and row bytes.

    `dtype` is the type in which the tensors lie; of another one than float32 a graph reads them as casts.
    """

    def lying(weight: Weight) -> tuple[str, int, int] | None:
        stored = weight.of if isinstance(weight, Cast) and weight.to == dtype else weight
        same = (stored is weight) == (dtype == "float32")
        return locate(stored.name) if same and isinstance(stored, Tensor) and stored.dtype == "float32" else None

    def find(weight: Weight) -> Place | None:
        found = lying(weight)
        if found is not None:
            return Place(found[0], found[1])
        if isinstance(weight, Rows):
            found = lying(weight.of)
            return Place(found[0], found[1] + weight.start * found[2]) if found is not None else None
        if isinstance(weight, Concat):
            return _adjacent([find(p) for p in weight.parts], [p.nbytes for p in weight.parts])
        return None

    return find


def _adjacent(places: list[Place | None], sizes: list[int]) -> Place | None:
    """The first place, when all follow each other without a gap."""
    first = places[0]
    if first is None:
        return None
    offset = first.offset
    for place, size in zip(places, sizes, strict=True):
        if place != Place(first.file, offset):
            return None
        offset += size
    return first
