"""Which weights of two models are not the same, and which cannot be compared with what is at hand.

Original tensors are compared where both sides have theirs. A build whose original weights are not at hand has them as
its data files hold them: then what both sides' graphs read under one name is compared, made anew from the original
tensors on a side that has those.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from flowc.ir.weights.expressions import Weight
from flowc.ir.weights.place import lies_in_graph
from flowc.report.apart import Difference, NotCompared, Progress
from flowc.report.subject import Named
from flowc.weights.random import RandomCheckpoint

Array = np.ndarray[Any, np.dtype[Any]]


def weights_apart(a: Named, b: Named, progress: Progress | None) -> Iterator[Difference | NotCompared]:
    """Tensors that are not on both sides, have other shapes or values; then those that could not be compared."""
    x, y = a.compiled.usage.tensors, b.compiled.usage.tensors
    common: list[str] = []
    for name in dict.fromkeys([*x, *y]):
        if name in x and name in y and x[name].shape == y[name].shape:
            common.append(name)
        else:
            sides = [str(list(side[name].shape)) if name in side else "–" for side in (x, y)]
            yield Difference("weights", name, *sides)
    if not common:
        return
    mine, theirs = a.compiled.checkpoint, b.compiled.checkpoint
    if mine is not None and theirs is not None:
        if isinstance(mine, RandomCheckpoint) and mine.describe() == theirs.describe():
            return  # values follow from seed, name and shape
        yield from _values(common, lambda n: mine.read(n, None), lambda n: theirs.read(n, None), progress)
    elif a.weights_file is not None and a.weights_file == b.weights_file:
        reason = f"both name the one file {a.weights_file}, which is not there"
        yield NotCompared("weights", _tensors(len(common)), reason, leaves_open=False)
    elif a.has_weights and b.has_weights:
        yield from _stored(a, b, common, progress)
    else:
        lacking = [f"{side.path}: {side.lacks_weights}" for side in (a, b) if not side.has_weights]
        yield NotCompared("weights", _tensors(len(common)), "; ".join(lacking))


def _tensors(count: int) -> str:
    return f"{count} tensor{'s' if count > 1 else ''}"


def _values(
    names: list[str], mine: Callable[[str], Array], theirs: Callable[[str], Array], progress: Progress | None
) -> Iterator[Difference]:
    for done, name in enumerate(names):
        if progress is not None:
            progress("comparing weights", done, len(names))
        hashes = [hashlib.sha256(np.ascontiguousarray(side(name)).data).hexdigest() for side in (mine, theirs)]
        if hashes[0] != hashes[1]:
            yield Difference("weights", name, *(f"sha256 {h[:16]}" for h in hashes))


def _stored(a: Named, b: Named, common: list[str], progress: Progress | None) -> Iterator[Difference | NotCompared]:
    """Weights that both sides' graphs read under one name; tensors of the others cannot be told apart."""
    sides = [{w.key: w for w in side.compiled.weights if not lies_in_graph(w)} for side in (a, b)]
    keys = [key for key in sides[0] if key in sides[1]]
    yield from _values(keys, _reader(a, sides[0]), _reader(b, sides[1]), progress)
    covered = {tensor.name for key in keys for tensor in sides[0][key].tensors()}
    left = [name for name in common if name not in covered]
    if left:
        reason = f"the original weights are not at hand, and the two builds store them in other forms: {left[0]}"
        reason += f" and {len(left) - 1} more" if len(left) > 1 else ""
        yield NotCompared("weights", _tensors(len(left)), reason)


def _reader(side: Named, weights: dict[str, Weight]) -> Callable[[str], Array]:
    from flowc.verify.rebuild import Stored, layout_of

    checkpoint, manifest = side.compiled.checkpoint, side.manifest
    if checkpoint is not None:
        return lambda key: weights[key].evaluate(checkpoint.read)
    assert manifest is not None, "the caller has seen that it has weights"
    places, folder = layout_of(side.compiled, manifest).places, manifest.folder

    def read(key: str) -> Array:
        place = places[key]
        return Stored(weights[key], folder / place.file, place.offset).evaluate(_nothing)

    return read


def _nothing(name: str, rows: slice | None) -> Array:
    raise AssertionError(f"a stored weight is made of nothing, and asked for {name}")
