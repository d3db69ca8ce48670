"""The plain number formats of weight files, and their conversion to what flowc computes with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from flowc.errors import WeightsError
from flowc.weights.files import SourceFile

_PIECE = 1 << 18  # elements converted at a time


@dataclass(frozen=True, slots=True)
class Storage:
    """A number format: bits of one element, how numpy reads its bytes, and what flowc turns it into.

    `raw` and `result` are empty for formats that flowc recognises in a header and cannot read.
    """

    bits: int
    raw: str = ""
    result: str = ""


STORAGES: Mapping[str, Storage] = MappingProxyType(
    {
        "f64": Storage(64, "<f8", "f4"),
        "f32": Storage(32, "<f4", "f4"),
        "f16": Storage(16, "<f2", "f4"),
        "bf16": Storage(16, "<u2", "f4"),
        "i64": Storage(64, "<i8", "i8"),
        "i32": Storage(32, "<i4", "i8"),
        "i16": Storage(16, "<i2", "i8"),
        "i8": Storage(8, "i1", "i8"),
        "u32": Storage(32, "<u4", "i8"),
        "u16": Storage(16, "<u2", "i8"),
        "u8": Storage(8, "u1", "i8"),
        "bool": Storage(8, "u1", "i8"),
        "u64": Storage(64),
        "c64": Storage(64),
        "f8_e4m3": Storage(8),
        "f8_e5m2": Storage(8),
        "f8_e8m0": Storage(8),
        "f8_e4m3fnuz": Storage(8),
        "f8_e5m2fnuz": Storage(8),
        "f6_e2m3": Storage(6),
        "f6_e3m2": Storage(6),
        "f4": Storage(4),
    }
)


def convert(raw: npt.NDArray[Any], storage: str, out: npt.NDArray[Any]) -> None:
    """Write elements read as `STORAGES[storage].raw` into `out` (float32 or int64, same shape)."""
    if storage == "bf16":
        # a bfloat16 is the upper half of a float32
        np.left_shift(raw, 16, out=out.view(np.uint32), dtype=np.uint32)
    elif storage == "bool":
        np.not_equal(raw, 0, out=out, casting="unsafe")
    else:
        with np.errstate(over="ignore"):  # a float64 too large becomes inf, which the finite check names
            np.copyto(out, raw, casting="unsafe")


def read_plain(file: SourceFile, offset: int, storage: str, count: int, name: str) -> npt.NDArray[Any]:
    """`count` elements of a plain format from a file, as a flat float32 or int64 array.

    WeightsError `unsupported-dtype` for a format that flowc knows by name only; else as `SourceFile.read_into`.
    """
    kind = STORAGES[storage]
    if not kind.raw:
        raise WeightsError.of("unsupported-dtype", f"tensor '{name}' is stored as {storage}, which flowc does not read")
    source, result = np.dtype(kind.raw), np.dtype(kind.result)
    if source == result:
        whole = file.read(offset, count * result.itemsize)
        return whole.view(result)
    out = np.empty(count, result)
    for begin in range(0, count, _PIECE):
        part = out[begin : begin + _PIECE]
        raw = file.read(offset + begin * source.itemsize, part.size * source.itemsize)
        convert(raw.view(source), storage, part)
    return out
