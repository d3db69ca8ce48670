"""Types of what any subgraph in ONNX text makes: what onnx might not survive is tried in another process first."""

from __future__ import annotations

import functools

from flowc.ir.onnx_text.infer import fit, infer
from flowc.ir.onnx_text.parse import parse
from flowc.ir.onnx_text.probe import survives
from flowc.ir.types import ShapeError, TensorType


@functools.lru_cache(maxsize=256)
def result_types(text: str, types: tuple[TensorType, ...]) -> tuple[TensorType, ...]:
    """Types of a text's outputs for the types of its inputs, as declared and as onnx infers them.

    Raises ShapeError where the two differ or the subgraph itself does not fit together.
    """
    fit(parse(text), types)
    if not survives(text, types):
        raise ShapeError(
            "onnx itself does not survive its checks of this subgraph: it crashes, runs on, or takes all memory"
        )
    return infer(text, types)
