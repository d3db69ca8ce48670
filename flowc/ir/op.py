"""What a core operator is: attributes, operand names, result types, and its meaning in numpy.

Operators are frozen dataclasses whose fields are their attributes. `infer` gives the results' types; `reference` is
the meaning that every pass and every target is held to, in plain numpy, independent of any lowering.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields
from typing import Any, ClassVar

import numpy as np

from flowc.ir.types import TensorType

Array = np.ndarray[Any, np.dtype[Any]]

REGISTRY: dict[str, type[Op]] = {}
"""Every core operator by name."""


@dataclass(frozen=True)
class Op:
    """Base of the core operators."""

    name: ClassVar[str] = ""
    operands: ClassVar[tuple[str, ...]] = ()
    """Names of the operands in order; trailing ones may be left out, any may be None where `infer` allows it."""

    def __init_subclass__(cls, name: str = "", operands: tuple[str, ...] = (), **kw: Any) -> None:
        super().__init_subclass__(**kw)
        if name:
            cls.name = name
            cls.operands = operands
            REGISTRY[name] = cls

    tokenwise: ClassVar[tuple[str, ...]] = ()
    """Operands [batch, sequence, ...] of whose token t alone token t of every result is made; empty when tokens mix."""

    exact: ClassVar[bool] = False
    """Whether each number is at most one rounding of what its operands give: moved data, a sum or product of two."""

    def rounds_at(self) -> str | float | None:
        """Size of the number that was rounded last on the way to a result, when it is not the result itself.

        An operand's name, where a result is that operand times a factor near 0 or 1 (a gate); a number, where it comes
        of a sum with a constant, or of a function that saturates there.
        """
        return None

    def rounding(self, operands: Sequence[Array | None], results: Sequence[Array]) -> tuple[Array, ...]:
        """The numbers that one last rounding moves by the unit roundoff, as a share of them, broadcastable to results.

        What operands that are off by a rounding do to a result is not meant (see `verify/rounding.py`).
        """
        at = self.rounds_at()
        if isinstance(at, str):
            operand = operands[self.operands.index(at)]
            return tuple(np.abs(r if operand is None else operand) for r in results)
        return tuple(np.abs(r) if at is None else np.maximum(np.abs(r), r.dtype.type(at)) for r in results)

    def spread(self, operands: Sequence[Array | None], each: float, row: float) -> tuple[Array, ...] | None:
        """Mean squares of how far results move with their operands that are no weights, in closed form; None without.

        Every number of such an operand moves by the share `each` of it, up or down at random, and every row by `row`.
        """
        return None

    def undecided(self, operands: Sequence[Array | None]) -> Array | None:
        """Where the last rounding decides which way the operator goes: bool, of the leading axes of every result.

        None for an operator that goes one way only.
        """
        return None

    infer: ClassVar[Callable[..., tuple[TensorType, ...]]]
    """Types of the results for types of the operands; raises ShapeError when they do not fit."""

    reference: ClassVar[Callable[..., tuple[Array, ...]]]
    """The operator's meaning: arrays of the operands to arrays of the results, float32 to float32."""

    def macs(self, inputs: Sequence[tuple[int, ...] | None], outputs: Sequence[tuple[int, ...]]) -> int:
        """Multiply-adds for operands and results of these sizes; 0 for elementwise and data-moving operators."""
        return 0

    def attributes(self) -> dict[str, Any]:
        """Attributes that differ from their defaults."""
        out: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if f.default is MISSING or value != f.default:
                out[f.name] = value
        return out
