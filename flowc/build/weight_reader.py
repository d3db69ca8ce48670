"""Reading a build's weights, so that what is wrong with a tensor points at the stage that uses it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from flowc.errors import FlowError, WeightsError
from flowc.frontend.usage import Usage
from flowc.ir.dtypes import largest
from flowc.ir.weights.expressions import Weight
from flowc.weights import Checkpoint, check_finite
from flowc.weights.checkpoint import Array


@dataclass(frozen=True, slots=True)
class WeightReader:
    """The checkpoint of a build, and which stage uses which of its tensors."""

    checkpoint: Checkpoint
    usage: Usage

    def read(self, name: str, rows: slice | None = None) -> Array:
        """See `Checkpoint.read`; errors name the stage and its place in the spec."""
        try:
            return self.checkpoint.read(name, rows)
        except FlowError as error:
            raise self._located(error, name) from None

    def check(self, array: Array, weight: Weight, row: int = 0) -> None:
        """Raise WeightsError `non-finite-weight` unless a weight's rows from `row` on are finite; names the tensor."""
        try:
            check_finite(array, weight.key, row)
        except WeightsError:
            names = [tensor.name for tensor in weight.tensors()]
            self._check_tensors(names)
            self._check_range(names, weight.dtype)
            raise

    def check_all(self) -> None:
        """Read every tensor that a stage uses; raises WeightsError `non-finite-weight` at the first at fault."""
        self._check_tensors(self.usage.tensors)

    def _check_range(self, names: Iterable[str], dtype: str) -> None:
        """Raise WeightsError for the first tensor with a number that the float type of the build cannot hold."""
        for name in names:
            array = self.read(name)
            size = np.abs(array)
            if array.dtype.kind == "f" and size.size and size.max() > largest(dtype):
                index = ", ".join(map(str, np.unravel_index(int(size.argmax()), array.shape)))
                most = f"{largest(dtype):g}"
                message = f"tensor '{name}' holds {array.flat[int(size.argmax())]:g} at [{index}]; {dtype} holds {most}"
                error = WeightsError.of("non-finite-weight", message, hint="--dtype bfloat16, or float32")
                raise self._located(error, name)

    def _check_tensors(self, names: Iterable[str]) -> None:
        for name in names:
            try:
                check_finite(self.read(name), name)
            except WeightsError as error:
                raise self._located(error, name) from None

    def _located(self, error: FlowError, name: str) -> WeightsError:
        used = self.usage.tensors.get(name)
        if used is None:
            return WeightsError(error.diagnostics)
        origin = used.origin
        return WeightsError(
            replace(d, message=f"{d.message} (stage {origin.stage})", span=d.span or origin.span)
            for d in error.diagnostics
        )
