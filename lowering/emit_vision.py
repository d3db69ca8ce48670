"""Emitters of the operators of vision models."""

from __future__ import annotations

import math

import numpy as np
import onnx_ir as onnx

from flowc.ir.core.vision import ExpandBatch, PatchAngles, Patches, grid_of
from flowc.ir.graph import Node, Value
from flowc.lowering.emitter import DTYPES, Emitter, emits


@emits(Patches)
def patches(e: Emitter, op: Patches, node: Node) -> None:
    pixels = node.need("pixels")
    channels, x = int(pixels.shape[1]), e.need("pixels")
    size = channels * op.height * op.width
    grid = grid_of(pixels.type, op.height, op.width)
    if grid is not None:
        rows, columns = grid
        ends = (rows * op.height, columns * op.width)
        whole = x if ends == pixels.shape[2:] else _cropped(e, x, e.ints(*ends))
        split = e.ints(-1, channels, rows, op.height, columns, op.width)
        joined = e.ints(-1, rows * columns, size)
    else:
        rows, columns = _grid(e, pixels, op.height, op.width)
        high, wide = e.ints(op.height), e.ints(op.width)
        whole = _cropped(e, x, e.op("Concat", e.op("Mul", rows, high), e.op("Mul", columns, wide), axis=0))
        split = e.op("Concat", e.ints(-1, channels), rows, high, columns, wide, axis=0, label="GridShape")
        joined = e.op("Concat", e.size(pixels, 0), e.op("Mul", rows, columns), e.ints(size), axis=0)
    turned = e.op("Transpose", e.op("Reshape", whole, split, label="Grid"), perm=[0, 2, 4, 1, 3, 5])
    e.bind(e.op("Reshape", turned, joined))


def _grid(e: Emitter, pixels: Value, height: int, width: int) -> tuple[onnx.Value, onnx.Value]:
    """Rows and columns of patches at run time: two int64 [1]."""

    def count(axis: int, size: int) -> onnx.Value:
        return e.shared(("patches", id(pixels), axis, size), lambda: e.op("Div", e.size(pixels, axis), e.ints(size)))

    return count(2, height), count(3, width)


def _cropped(e: Emitter, x: onnx.Value, ends: onnx.Value) -> onnx.Value:
    """The image without the pixels that fill no patch."""
    return e.op("Slice", x, e.ints(0, 0), ends, e.ints(2, 3), label="Whole")


@emits(ExpandBatch)
def expand_batch(e: Emitter, op: ExpandBatch, node: Node) -> None:
    x, like = node.need("x"), node.need("like")
    sizes = e.sizes(like, (0,), *(int(d) for d in x.shape[1:]))
    e.bind(e.op("Expand", e.need("x"), sizes))


@emits(PatchAngles)
def patch_angles(e: Emitter, op: PatchAngles, node: Node) -> None:
    pixels, facts = node.need("pixels"), op.facts
    grid = _grid(e, pixels, op.height, op.width)
    frequencies = e.array(facts.frequencies)
    shape = e.op("Concat", *grid, e.ints(facts.head_dim // 4), axis=0)
    axes: list[onnx.Value] = []
    for axis, count in enumerate(grid):
        places = e.op("Unsqueeze", _places(e, op, axis, count), e.ints(*((1, 2) if axis == 0 else (0, 2))))
        axes.append(e.op("Expand", e.op("Mul", places, frequencies), shape))
    turning = e.op("Reshape", e.op("Concat", *axes, axis=2), e.ints(1, -1, facts.head_dim // 2))
    if facts.leading:
        still = e.array(np.zeros((1, facts.leading, facts.head_dim // 2), np.float32))
        turning = e.op("Concat", still, turning, axis=1)
    e.bind(e.op("Cos", turning), e.op("Sin", turning))


def _places(e: Emitter, op: PatchAngles, axis: int, count: onnx.Value) -> onnx.Value:
    """`PatchRopeFacts.places` at run time: float32 [count]."""
    f32 = np.float32
    numbers = e.op("Range", e.array(0, "int64"), e.op("Squeeze", count), e.array(1, "int64"))
    numbers, total = (e.op("Cast", v, to=int(DTYPES["float32"])) for v in (numbers, count))
    if op.facts.style == "centred":
        centre = e.op("Div", e.op("Add", numbers, e.array(f32(0.5))), total)
        centre = e.op("Sub", e.op("Mul", centre, e.array(f32(2))), e.array(f32(1)))
        return e.op("Mul", centre, e.array(f32(2 * math.pi)))
    if op.facts.reference is None:
        return numbers
    return e.op("Mul", e.op("Div", numbers, total), e.array(f32(op.facts.reference[axis])))
