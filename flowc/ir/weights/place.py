"""Where the bytes of a weight lie in what a build writes, and under which name."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TypeGuard

from flowc.ir.weights.expressions import Constant, Tensor, Weight

INLINE_BYTES = 1024


def lies_in_graph(weight: Weight) -> TypeGuard[Constant]:
    """Whether a weight is a small constant, which lies in the graph file itself."""
    return isinstance(weight, Constant) and weight.nbytes <= INLINE_BYTES


@dataclass(frozen=True, slots=True)
class Place:
    """Where a weight's bytes lie: a file beside the model, and an offset."""

    file: str
    offset: int


def weight_name(weight: Weight) -> str:
    """Name of the initializer that holds a weight: the tensor's own, or its first tensor's with a digest."""
    if isinstance(weight, Tensor):
        return weight.name
    first = next(weight.tensors(), None)
    digest = hashlib.sha256(weight.key.encode()).hexdigest()[:8]
    stem = first.name if first is not None else weight.key.split("<")[0].split("(")[0]
    return f"{stem}~{digest}"
