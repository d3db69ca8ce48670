"""Reading a build's weights, so that what is wrong with a tensor points at the stage that uses it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from flowc.errors import FlowError, WeightsError
from flowc.frontend.usage import Usage
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
            self._check_tensors(tensor.name for tensor in weight.tensors())
            raise

    def check_all(self) -> None:
        """Read every tensor that a stage uses; raises WeightsError `non-finite-weight` at the first at fault."""
        self._check_tensors(self.usage.tensors)

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
