"""The data file: where every weight lies, and writing it as a stream.

One file serves all graphs of a build. A packed weight is stored once; a graph that wants a part of its rows reads them
where they lie. Nothing is held in memory beyond the tensor being written.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from flowc.ir.weights.expressions import Concat, Read, Rows, Tensor, Weight
from flowc.ir.weights.place import Place, lies_in_graph

ALIGNMENT = 4096


@dataclass(slots=True)
class Layout:
    """Places of all weights (by key), and those that the data file holds, in file order."""

    places: dict[str, Place] = field(default_factory=dict[str, Place])
    stored: list[tuple[int, Weight]] = field(default_factory=list[tuple[int, Weight]])
    size: int = 0


InPlace = Callable[[Weight], Place | None]
"""Where a weight already lies in the checkpoint, if it may be read there."""


def plan(weights: Iterable[Weight], file: str, in_place: InPlace | None = None) -> Layout:
    """Give every weight its place: in the checkpoint, inside a packed weight, or in the data file."""
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
    for weight in left:
        if weight.key in parts or weight.key in layout.places:
            continue
        offset = -(-layout.size // ALIGNMENT) * ALIGNMENT
        layout.stored.append((offset, weight))
        layout.size = offset + weight.nbytes
        _register(layout, weight, file, offset, unique)
    for weight in left:
        _resolve(weight.key, parts, layout)
    return layout


def _resolve(key: str, parts: Mapping[str, tuple[str, int]], layout: Layout) -> Place:
    """The place of a weight; a part lies in its whole, which may be a part itself."""
    if key not in layout.places:
        whole, start = parts[key]
        base = _resolve(whole, parts, layout)
        layout.places[key] = Place(base.file, base.offset + start)
    return layout.places[key]


def _register(layout: Layout, weight: Weight, file: str, offset: int, wanted: Mapping[str, Weight]) -> None:
    """A stored weight, and the parts of it that are wanted on their own."""
    layout.places[weight.key] = Place(file, offset)
    if isinstance(weight, Concat):
        for part in weight.parts:
            if part.key in wanted and part.key not in layout.places:
                layout.places[part.key] = Place(file, offset)
            offset += part.nbytes


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
    path: Path,
    read: Read,
    check: Callable[[Any, Weight], None],
    progress: Callable[[int], None] | None = None,
) -> str:
    """Write the data file; returns its sha256 (hex). `check` sees each tensor before it is written."""
    hasher = _Hasher()
    try:
        with path.open("wb") as file:
            position = 0
            for offset, weight in layout.stored:
                array = weight.evaluate(read)
                check(array, weight)
                for chunk in (bytes(offset - position), array.reshape(-1).view(np.uint8).data):
                    if len(chunk):
                        file.write(chunk)
                        hasher.update(chunk)
                position = offset + weight.nbytes
                if progress is not None:
                    progress(position)
    finally:
        digest = hasher.finish()
    return digest


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


def in_place_reader(locate: Callable[[str], tuple[str, int, int] | None]) -> InPlace:
    """Finds plain tensors, and rows of them, in the checkpoint; `locate` gives file name, offset and row bytes."""

    def find(weight: Weight) -> Place | None:
        if isinstance(weight, Tensor):
            found = locate(weight.name)
            return Place(found[0], found[1]) if found is not None else None
        if isinstance(weight, Rows) and isinstance(weight.of, Tensor):
            found = locate(weight.of.name)
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
