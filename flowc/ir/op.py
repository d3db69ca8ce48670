"""What an operator is: attributes, operand names, result types, its meaning in numpy, and facts for other rooms.

Operators are frozen dataclasses whose fields are their attributes. `infer` gives the results' types; `reference` is
the meaning that every pass and every target is held to, in plain numpy, independent of any lowering. What else must be
known of an operator are its traits (`Traits`).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass, fields
from types import FunctionType
from typing import Any, ClassVar, Literal, TypeVar, cast

import numpy as np

from flowc.errors import InternalError
from flowc.ir.dtypes import Declared, Groups, groups_of, require_dtypes
from flowc.ir.traits import Traits
from flowc.ir.types import ShapeError, TensorType

Array = np.ndarray[Any, np.dtype[Any]]
Operand = TypeVar("Operand")

REGISTRY: dict[str, type[Op]] = {}
"""Every operator by name."""

Level = Literal["core", "kernel"]
"""Levels of a graph: `core` says what a model means, `kernel` what a runtime runs."""

BOTH: frozenset[Level] = frozenset(("core", "kernel"))


@dataclass(frozen=True)
class Op(Traits):
    """Base of the operators."""

    required: ClassVar[int] = 0
    """How many of the operands must be there: those that `infer` has no default for."""

    variadic: ClassVar[bool] = False
    """Whether it takes any number of operands, which have no names."""

    dtypes: ClassVar[Groups] = ()
    """Which operands must be of one element type, and of which; see `flowc.ir.dtypes`."""
    levels: ClassVar[frozenset[Level]] = BOTH
    """Levels at which it may stand. At both: every target runs it in one way, so there is nothing to choose."""

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

    def spread(
        self, operands: Sequence[Array | None], results: Sequence[Array], each: float, row: float
    ) -> tuple[Array, ...] | None:
        """Mean squares of how far results move with their operands that are no weights, in closed form; None without.

        `results` are what the operands give. Every number of such an operand moves by the share `each` of it, up or
        down at random, and every row by `row`.
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

    def __init_subclass__(
        cls,
        name: str = "",
        operands: tuple[str, ...] | None = None,
        dtypes: Declared | None = None,
        level: Level | None = None,
        **kw: Any,
    ) -> None:
        """Register an operator; operands and element types that are not stated are those of the operator above it."""
        super().__init_subclass__(**kw)
        if not name:
            return
        operands = cls.operands if operands is None else operands
        infer, reference = (cast("FunctionType", f) for f in (cls.infer, cls.reference))
        for function in (infer, reference):
            code = function.__code__
            if code.co_varnames[1 : code.co_argcount] != operands:
                raise TypeError(f"{cls.__name__}.{function.__name__} does not take the operands {operands}")
        if dtypes is None and not cls.name:
            raise TypeError(f"{cls.__name__} does not say which element types it takes")
        cls.name = name
        cls.operands = operands
        cls.dtypes = cls.dtypes if dtypes is None else groups_of(operands, dtypes)
        cls.levels = BOTH if level is None else frozenset((level,))
        cls.variadic = bool(infer.__code__.co_flags & inspect.CO_VARARGS)
        cls.required = len(operands) - len(infer.__defaults__ or ())
        REGISTRY[name] = cls

    def index_of(self, operand: str) -> int:
        """The place of an operand; InternalError for a name that is none of the operator's."""
        if operand not in self.operands:
            known = ", ".join(self.operands) or "none by name"
            raise InternalError(f"the operator '{self.name}' has no operand '{operand}'; it has {known}")
        return self.operands.index(operand)

    def arrange(self, inputs: Sequence[Operand | None] = (), /, **named: Operand | None) -> tuple[Operand | None, ...]:
        """Operands in order: `inputs` with the named ones in their places (None takes one away), no None at the end.

        Raises InternalError for a name that is none of the operator's.
        """
        found = list(inputs)
        for name, value in named.items():
            index = self.index_of(name)
            found += [None] * (index + 1 - len(found))
            found[index] = value
        while found and found[-1] is None:
            found.pop()
        return tuple(found)

    def require_operands(self, inputs: Sequence[object]) -> None:
        """Raise ShapeError when there are more operands than the operator has, or one that it needs is absent."""
        if self.variadic:
            if not inputs or None in inputs:
                raise ShapeError("takes one operand or more, and each must be there")
        elif self.required <= len(inputs) <= len(self.operands) and None not in inputs[: self.required]:
            return
        elif len(inputs) > len(self.operands):
            raise ShapeError(f"takes {len(self.operands)} operands ({', '.join(self.operands)}), not {len(inputs)}")
        else:
            for index in range(self.required):
                if index >= len(inputs) or inputs[index] is None:
                    raise ShapeError(f"the operand '{self.operands[index]}' is absent")

    def require_dtypes(self, types: Sequence[TensorType | None]) -> None:
        """Raise ShapeError where the operands' element types are not what the operator takes, or are mixed."""
        require_dtypes(self.operands, self.dtypes, types)

    def attributes(self) -> dict[str, Any]:
        """Attributes that differ from their defaults."""
        out: dict[str, Any] = {}
        for f in fields(self):
            value = getattr(self, f.name)
            if f.default is MISSING or value != f.default:
                out[f.name] = value
        return out
