"""Seeded random weights, to try a spec of any size without a download.

A value depends on nothing but the seed, the tensor's name and shape, and its own index: ranges of rows agree with
the whole tensor, and every machine makes the same bits. Philox is used because its stream can be entered
anywhere; its integers become floats by exact steps and one float32 multiplication, so no maths library is involved.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from flowc.weights.checkpoint import Array, TensorInfo, find, row_range

_PER_COUNTER = 8  # 32-bit values of one Philox counter: four 64-bit words
_PIECE = 1 << 16
_CENTRED_AT_ONE = re.compile(r"(norm|ln|lambda)\w*(\.\d+)?(\.weight)?$")


class RandomCheckpoint:
    """Random tensors that come into being when a spec declares them. `seed` is any whole number."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._tensors: dict[str, TensorInfo] = {}

    def declare(self, name: str, shape: tuple[int, ...]) -> TensorInfo:
        """Say that a tensor exists; a second time with another shape replaces it."""
        self._tensors[name] = TensorInfo(name, shape, "f32")
        return self._tensors[name]

    def tensors(self) -> Mapping[str, TensorInfo]:
        """What has been declared."""
        return MappingProxyType(self._tensors)

    def read(self, name: str, rows: slice | None = None) -> Array:
        """See `Checkpoint.read`. Matrices keep the variance of what they multiply; norm weights are about 1."""
        shape = find(self._tensors, name).shape
        begin, end = row_range(rows, shape)
        row = math.prod(shape[1:])
        centre, spread = _distribution(name, shape)
        out = self._uniform(name, shape, begin * row, (end - begin) * row)
        out *= np.float32(spread)
        if centre:
            out += np.float32(centre)
        return out.reshape((end - begin, *shape[1:]) if shape else ())

    def files(self) -> tuple[Path, ...]:
        """None."""
        return ()

    def describe(self) -> str:
        """The seed."""
        return f"random, seed {self._seed}, {len(self._tensors)} tensors"

    def _uniform(self, name: str, shape: tuple[int, ...], begin: int, count: int) -> npt.NDArray[Any]:
        """Elements [begin, begin + count) of the tensor's stream, float32, uniform in (-1, 1)."""
        digest = hashlib.sha256(f"{self._seed}/{name}/{shape}".encode()).digest()
        key = int.from_bytes(digest[:16], "little")
        out = np.empty(count, np.float32)
        for done in range(0, count, _PIECE):
            part = out[done : done + _PIECE]
            first, skip = divmod(begin + done, _PER_COUNTER)
            words = -(-(skip + part.size) // 2)
            raw = np.random.Philox(key=key, counter=first).random_raw(words)
            bits = raw.astype("<u8", copy=False).view("<u4")[skip : skip + part.size]
            # an odd integer of 24 bits and a sign: exact in float32, as is the division by a power of two
            np.copyto(part, (bits >> 8).astype(np.int32) * 2 - ((1 << 24) - 1))
            part *= np.float32(2.0**-24)
        return out


def _distribution(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """Centre and half width. A uniform value of half width w has the standard deviation w / sqrt(3)."""
    if len(shape) >= 2:
        return 0.0, math.sqrt(3.0 / max(1, math.prod(shape[1:])))
    return (1.0, 0.1) if _CENTRED_AT_ONE.search(name.lower()) else (0.0, 0.02)
