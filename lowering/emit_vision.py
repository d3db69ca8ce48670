"""Emitters of the operators of vision models."""

from __future__ import annotations

from flowc.ir.graph import Node
from flowc.ir.ops.vision import ExpandBatch, Patches
from flowc.lowering.emitter import Emitter, emits


@emits(Patches)
def patches(e: Emitter, op: Patches, node: Node) -> None:
    pixels = node.inputs[0]
    assert pixels is not None
    channels, height, width = (int(d) for d in pixels.shape[1:])
    grid = e.ints(-1, channels, height // op.height, op.height, width // op.width, op.width)
    split = e.op("Reshape", e.need("pixels"), grid, label="Grid")
    turned = e.op("Transpose", split, perm=[0, 2, 4, 1, 3, 5])
    count = (height // op.height) * (width // op.width)
    e.bind(e.op("Reshape", turned, e.ints(-1, count, channels * op.height * op.width)))


@emits(ExpandBatch)
def expand_batch(e: Emitter, op: ExpandBatch, node: Node) -> None:
    x, like = node.inputs
    assert x is not None
    assert like is not None
    sizes = e.sizes(like, (0,), *(int(d) for d in x.shape[1:]))
    e.bind(e.op("Expand", e.need("x"), sizes))
