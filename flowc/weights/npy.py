"""Numpy's `.npy` and `.npz` as inputs and references: arrays of numbers in their own dtype, never unpickled.

numpy's own reader hands a header to Python's parser and a shape to the allocator as they come. Here a header is a short
literal of simple types, and no array has more bytes than its file has.
"""

from __future__ import annotations

import ast
import contextlib
import math
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Generator
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt

from flowc.outside.reading import Unreadable, open_at_once

MAX_HEADER = 10_000
"""Bytes of a header: it goes through Python's literal parser."""

MAX_INFLATION = 1032
"""Deflate cannot do better: a member that claims more lies about its size."""

_MAX_DIMS = 64

ZIP_ERRORS = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, ValueError, NotImplementedError, RuntimeError,
)  # fmt: skip
"""What zipfile and zlib raise for a file that is not what it should be."""


def read_npy(path: Path) -> npt.NDArray[Any]:
    """The array of an `.npy` file. Raises FileNotFoundError, Unreadable."""
    with _regular(path) as (stream, size):
        return _read(stream, size)


def read_npz(path: Path) -> dict[str, npt.NDArray[Any]]:
    """The arrays of an `.npz` file by name. Raises FileNotFoundError, Unreadable."""
    with _regular(path) as (stream, size):
        try:
            with zipfile.ZipFile(stream) as archive:
                return {e.filename.removesuffix(".npy"): _member(archive, e, size) for e in archive.infolist()}
        except Unreadable:
            raise
        except ZIP_ERRORS as error:
            raise Unreadable(f"it is no .npz archive: {error}") from None


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, size: int) -> npt.NDArray[Any]:
    if entry.compress_size > size or entry.file_size > entry.compress_size * MAX_INFLATION + 1024:
        raise Unreadable(f"it says that '{entry.filename}' has {entry.file_size} bytes, which it cannot hold")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or entry.flag_bits & 1:
        raise Unreadable(f"it holds '{entry.filename}' encrypted or compressed in a way numpy does not write")
    with archive.open(entry) as stream:
        return _read(stream, entry.file_size)


@contextlib.contextmanager
def _regular(path: Path) -> Generator[tuple[IO[bytes], int]]:
    """A regular file's stream, and its size in bytes."""
    try:
        raw = open_at_once(path)
    except ValueError as error:  # a path that no file can have
        raise Unreadable(str(error)) from None
    with raw, cast("IO[bytes]", BufferedReader(raw)) as stream:
        status = os.fstat(stream.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable("it is not a regular file")
        yield stream, status.st_size


def _read(stream: IO[bytes], size: int) -> npt.NDArray[Any]:
    """The array that a stream of `size` bytes holds."""
    try:
        shape, fortran, dtype = read_header(stream)
    except ValueError as error:
        raise Unreadable(f"it is no .npy array: {error}") from None
    if dtype.hasobject or dtype.kind not in "fiub":
        raise Unreadable(f"it holds {dtype}, not numbers")
    needed, there = math.prod(shape) * dtype.itemsize, size - stream.tell()
    if needed > there:
        raise Unreadable(f"{dtype}{list(shape)} takes {needed} bytes, and {there} are there")
    data = stream.read(needed)
    if len(data) != needed:
        raise Unreadable("it ends too early")
    try:
        return np.frombuffer(bytearray(data), dtype).reshape(shape, order="F" if fortran else "C")
    except ValueError as error:  # sizes beyond numpy's, beside a size of 0
        raise Unreadable(str(error)) from None


def read_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether columns come first, and element type. ValueError says what is wrong.

    Format 1.0 only: numpy writes the later ones for structured types alone.
    """
    start = stream.read(10)
    if start[:8] != b"\x93NUMPY\x01\x00" or len(start) != 10:
        raise ValueError("it does not begin as npy format 1.0 does")
    length = int.from_bytes(start[8:], "little")
    if length > MAX_HEADER:
        raise ValueError(f"an array header of {length} bytes")
    try:
        header: object = ast.literal_eval(stream.read(length).decode("latin-1").strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise ValueError("an array header is not a literal") from None
    fields = cast("dict[object, object]", header) if isinstance(header, dict) else {}
    shape, fortran, descr = fields.get("shape"), fields.get("fortran_order"), fields.get("descr")
    if not isinstance(shape, tuple) or not isinstance(fortran, bool) or not isinstance(descr, str):
        raise ValueError("an array header does not give shape, order and a simple type")
    dims = cast("tuple[object, ...]", shape)
    if len(dims) > _MAX_DIMS or not all(type(dim) is int and 0 <= dim < 1 << 63 for dim in dims):
        raise ValueError("an array header gives a shape that is not a tuple of whole numbers")
    try:
        return cast("tuple[int, ...]", dims), fortran, np.dtype(descr)
    except (TypeError, ValueError, SyntaxError):
        raise ValueError(f"an array header gives the unknown type {descr[:80]!r}") from None
