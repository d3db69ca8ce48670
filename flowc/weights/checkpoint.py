"""What every source of weights offers, whatever its format."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from flowc.errors import FlowError, InternalError, Span, WeightsError, nearest
from flowc.ir.weights.blocks import AsStored

Array = npt.NDArray[Any]

_CHECK_ELEMENTS = 1 << 20


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor as its file announces it; nothing of its data has been read.

    `shape` and `name` are HuggingFace's. `storage` says how it lies in the file ('f32', 'bf16', 'i64', 'q4_1', ...).
    `plain`: bytes [offset, offset + nbytes) of `path` are the row-major tensor itself in `storage`.
    """

    name: str
    shape: tuple[int, ...]
    storage: str
    path: Path | None = None
    offset: int = 0
    nbytes: int = 0
    plain: bool = False


class Checkpoint(Protocol):
    """Named tensors, read one at a time."""

    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by name, in the order of the file. Reads no data."""
        ...

    def read(self, name: str, rows: slice | None = None) -> Array:
        """A tensor, or a range of its rows (axis 0), C-contiguous: float32, or int64 for integers and booleans.

        A name that is `AsStored` asks for the undecoded blocks of a quantised matrix, uint8 [rows, bytes of a row].
        Needs memory for what it returns and a few MB. WeightsError when the data cannot be had: `missing-tensor`,
        `unsupported-dtype`, `truncated-weights`, `changed-weights`, `unreadable-file`.
        """
        ...

    def files(self) -> tuple[Path, ...]:
        """The files that hold the tensors."""
        ...

    def describe(self) -> str:
        """One line, such as 'safetensors, 2 files, 272 tensors'."""
        ...


def find(tensors: Mapping[str, TensorInfo], name: str, *, blocks: bool = False) -> TensorInfo:
    """The tensor of that name, or WeightsError `missing-tensor` with the nearest name as a hint.

    `blocks`: the format stores some tensors in blocks; without, none can be had `AsStored`.
    """
    info = tensors.get(name)
    if info is None:
        raise WeightsError.of("missing-tensor", f"the weights have no tensor '{name}'", hint=nearest(name, tensors))
    if isinstance(name, AsStored) and not blocks:
        raise no_blocks(info)
    return info


def no_blocks(info: TensorInfo) -> WeightsError:
    """The error for blocks of a tensor that is not stored in any."""
    return WeightsError.of("unsupported-dtype", f"tensor '{info.name}' is stored as {info.storage}, not in blocks")


def row_range(rows: slice | None, shape: tuple[int, ...]) -> tuple[int, int]:
    """First and last-plus-one row of a request; a scalar counts as one row."""
    count = shape[0] if shape else 1
    if rows is None:
        return 0, count
    begin, end, step = rows.indices(count)
    if step != 1:
        raise InternalError(f"rows must be contiguous, got {rows}")
    return begin, max(begin, end)


def check_finite(array: Array, name: str, row: int = 0) -> None:
    """Raise WeightsError `non-finite-weight` with the first index where a float array holds NaN or an infinity.

    `row` is where the array starts in the tensor of that name.
    """
    if array.dtype.kind in "iub":
        return
    flat = array.reshape(-1)
    for begin in range(0, flat.size, _CHECK_ELEMENTS):
        part = flat[begin : begin + _CHECK_ELEMENTS]
        # A sum is finite only if all terms are; it can overflow without a culprit, so a doubt is settled exactly.
        with np.errstate(over="ignore", invalid="ignore"):
            suspicious = not np.isfinite(np.add.reduce(part, dtype=np.float32 if part.dtype.itemsize == 2 else None))
        if suspicious:
            bad = np.flatnonzero(~np.isfinite(part))
            if bad.size:
                _raise_non_finite(array, name, begin + int(bad[0]), row)


def _raise_non_finite(array: Array, name: str, position: int, row: int) -> None:
    place = [int(i) for i in np.unravel_index(position, array.shape)]
    index = ", ".join(map(str, [place[0] + row, *place[1:]] if place else []))
    value = array.reshape(-1)[position]
    raise WeightsError.of("non-finite-weight", f"tensor '{name}' holds {value} at [{index}]")


def at_span(error: FlowError, span: Span | None) -> WeightsError:
    """The same error, pointing at the place in the spec that named the weights."""
    return WeightsError(replace(d, span=span) if d.span is None else d for d in error.diagnostics)
