"""Emitters of the operators that streams of one graph meet in."""

from __future__ import annotations

import numpy as np

from flowc.ir.core.sequence import PartLike
from flowc.ir.graph import Node
from flowc.lowering.emitter import Emitter, emits


@emits(PartLike)
def part_like(e: Emitter, op: PartLike, node: Node) -> None:
    x, like = node.input("x"), node.input("like")
    assert x is not None and like is not None
    size, axis = e.size(like, 1), e.ints(1)
    if op.last:
        start = e.op("Sub", e.size(x, 1), size, label="Start")
        e.bind(e.op("Slice", e.get(x), start, e.ints(int(np.iinfo(np.int64).max)), axis))
    else:
        e.bind(e.op("Slice", e.get(x), e.ints(0), size, axis))
