"""Emitters of timestep embeddings and of angles along several axes."""

from __future__ import annotations

import numpy as np

from flowc.ir.core.diffusion import AxialAngles, Sinusoid
from flowc.ir.graph import Node
from flowc.lowering.emitter import DTYPES, Emitter, emits


@emits(Sinusoid)
def sinusoid(e: Emitter, op: Sinusoid, node: Node) -> None:
    scaled = e.op("Mul", e.need("x"), e.array(np.float32(op.factor)), label="Scaled")
    angles = e.op("Mul", e.op("Unsqueeze", scaled, e.ints(1)), e.array(op.frequencies()), label="Angles")
    e.bind(e.op("Concat", e.op("Cos", angles), e.op("Sin", angles), axis=1))


@emits(AxialAngles)
def axial_angles(e: Emitter, op: AxialAngles, node: Node) -> None:
    """One product: a channel's frequency stands in the row of its axis, and the others' rows are exact zeros."""
    wide = e.op("Cast", e.need("ids"), to=int(DTYPES["float64"]), label="Wide")
    angles = e.op("MatMul", wide, e.array(op.frequencies()), label="Angles")
    tables = [e.op(f, angles) for f in ("Cos", "Sin")]
    single = [e.op("Cast", t, to=int(DTYPES["float32"]), label="Single") for t in tables]
    e.bind(*(e.op("Unsqueeze", t, e.ints(0)) for t in single))
