"""Shapes of the checkpoint's tensors: by its header where there is one, else by what the stages say of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

from flowc.errors import Span, nearest
from flowc.frontend.reporter import Failed, Reporter
from flowc.frontend.usage import TensorUse, Usage
from flowc.ir.types import Dim
from flowc.ir.weights.expressions import Tensor

MAX_TENSOR_BYTES = 2**40

Sizes = tuple[int | None, ...]
"""What a stage asks for; None where it takes the size that the file has."""


@dataclass(frozen=True, slots=True)
class Tensors:
    """Looks tensors up for stages, and notes in `usage` which stage took which."""

    usage: Usage
    reporter: Reporter

    def tensor(self, name: str, sizes: Sequence[Dim | None], at: str) -> Tensor:
        """A tensor by name, its shape checked against `sizes`; `at` is the field of the stage that names it."""
        span, what = self.reporter.site.place(at), self.reporter.site.what
        if not name:
            raise self.reporter.fail("bad-value", f"{what}: the name of a weight is empty", span)
        if any(isinstance(s, str) for s in sizes):
            message = f"{what}: weight '{name}' would need the symbolic shape {list(sizes)}"
            raise self.reporter.fail("bad-shape", message)
        shape = self._shape(name, tuple(s if isinstance(s, int) else None for s in sizes), span)
        if prod(shape) * 4 > MAX_TENSOR_BYTES:
            raise self.reporter.fail("too-large", f"{what}: weight '{name}' {list(shape)} is larger than 1 TiB")
        self.usage.tensors.setdefault(name, TensorUse(shape, self.reporter.site.origin))
        return Tensor(name, shape)

    def has(self, name: str) -> bool:
        """Whether the checkpoint holds a tensor; True when there is no checkpoint to ask."""
        return self.usage.shapes is None or name in self.usage.shapes

    def size_of(self, name: str, axis: int) -> int | None:
        """Size of a tensor's axis as the file has it; None when there is no file or no such tensor."""
        shape = (self.usage.shapes or {}).get(name)
        return shape[axis] if shape is not None and axis < len(shape) else None

    def _shape(self, name: str, sizes: Sizes, span: Span | None) -> tuple[int, ...]:
        shapes = self.usage.shapes
        if shapes is None:
            return self._as_used_before(name, sizes, span)
        needs = f"{self.reporter.site.what} needs the weight '{name}' {_text(sizes)}"
        found = shapes.get(name)
        if found is not None and _fits(found, sizes):
            return found
        if found is None:
            message = f"{needs}, which the file does not have"
            self.reporter.weights_error("missing-weight", message, span, nearest(name, shapes))
        else:
            self.reporter.weights_error("misshapen-weight", f"{needs}, the file has {list(found)}", span)
        return tuple(s if s is not None else 1 for s in sizes)

    def _as_used_before(self, name: str, sizes: Sizes, span: Span | None) -> tuple[int, ...]:
        """The shape of a tensor that no file tells: what its first use said."""
        what, known = self.reporter.site.what, self.usage.tensors.get(name)
        if known is not None and _fits(known.shape, sizes):
            return known.shape
        if known is not None:
            note = (f"stage '{known.origin.kind}' takes it as {list(known.shape)}", known.origin.span)
            message = f"{what} takes the weight '{name}' as {_text(sizes)}, and another stage differently"
            raise self.reporter.fail("conflicting-shapes", message, span, notes=(note,))
        if None in sizes and self.usage.unreadable:
            raise Failed
        if None in sizes:
            message = f"{what}: the shape {_text(sizes)} of weight '{name}' is not known"
            hint = "give the size in the stage or in `model:`, or a weights file to read it from"
            raise self.reporter.fail("unknown-size", message, span, hint)
        return tuple(s for s in sizes if s is not None)


def _fits(shape: Sequence[int], sizes: Sizes) -> bool:
    """Whether a shape is what was asked for; None fits any size."""
    return len(shape) == len(sizes) and all(s in (None, n) for s, n in zip(sizes, shape, strict=True))


def _text(sizes: Sizes) -> str:
    return f"[{', '.join('?' if s is None else str(s) for s in sizes)}]"
