"""Where the bytes of a weight lie in what a build writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeGuard

from flowc.ir.weights.expressions import Constant, Weight

INLINE_BYTES = 1024


def lies_in_graph(weight: Weight) -> TypeGuard[Constant]:
    """Whether a weight is a small constant, which lies in the graph file itself."""
    return isinstance(weight, Constant) and weight.nbytes <= INLINE_BYTES


@dataclass(frozen=True, slots=True)
class Place:
    """Where a weight's bytes lie: a file beside the model, and an offset."""

    file: str
    offset: int
