"""A subgraph in ONNX text form as one operator."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import numpy as np

from flowc.errors import SpecError
from flowc.ir.onnx_text import parse as onnx_text
from flowc.ir.onnx_text.result_types import result_types
from flowc.ir.op import Array, Op
from flowc.ir.types import ShapeError, TensorType


@dataclass(frozen=True)
class Custom(Op, name="custom", operands=()):
    """What the subgraph `text` computes from its inputs, in the order in which it declares them.

    Its meaning is onnx's reference evaluator; for a text with operators of onnxruntime's own, which onnx does not
    know, onnxruntime's. SpecError where it has none for these operands.
    """

    text: str

    category = "custom"

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        try:
            return result_types(self.text, types)
        except onnx_text.BadText as error:
            raise ShapeError(str(error)) from None

    def reference(self, *arrays: Array) -> tuple[Array, ...]:
        graph = onnx_text.parse(self.text)
        feeds = {v.name: a for v, a in zip(graph.input, arrays, strict=True)}
        try:
            with np.errstate(all="ignore"):
                results = _evaluator(self.text)(feeds)
        except Exception as error:  # any kind: what the text asks for is not known before
            message = f"the subgraph '{graph.name}' has no result: {type(error).__name__}: {error}"
            raise SpecError.of("bad-custom", message) from error
        for value, array in zip(graph.output, results, strict=True):
            want = onnx_text.declared(value)
            sizes = [n for n, d in zip(array.shape, want.shape, strict=False) if isinstance(d, int) and n != d]
            if array.ndim != want.rank or sizes or array.dtype.name != want.dtype:
                found = TensorType(array.dtype.name, array.shape)
                message = f"the output '{value.name}' of the subgraph '{graph.name}' is declared {want}, and is {found}"
                raise SpecError.of("bad-custom", message)
        return tuple(results)


@functools.lru_cache(maxsize=16)
def _evaluator(text: str) -> Any:
    """A function from named inputs to the list of outputs."""
    model: Any = onnx_text.model(text)
    if onnx_text.uses_contrib(text):
        import onnxruntime

        runtime: Any = onnxruntime
        session = runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        return functools.partial(session.run, None)
    from onnx.reference import ReferenceEvaluator

    return functools.partial(ReferenceEvaluator(model).run, None)
