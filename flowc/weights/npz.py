"""Numpy's `.npz`: a zip of `.npy` arrays, read one member at a time and never unpickled."""

from __future__ import annotations

import ast
import math
import struct
import zipfile
import zlib
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any, cast

import numpy as np
import numpy.typing as npt

from flowc.errors import Diagnostics, FlowError, WeightsError
from flowc.weights.checkpoint import Array, TensorInfo, find, row_range
from flowc.weights.files import SourceFile

if TYPE_CHECKING:
    from collections.abc import Generator

_MAX_HEADER = 10_000  # bytes; it goes through Python's literal parser
_MAX_INFLATION = 1032  # deflate cannot do better: a member that claims more lies about its size
_PIECE = 1 << 20
_FLOATS = {"f8": "f64", "f4": "f32", "f2": "f16"}
_INTEGERS = {"i8": "i64", "i4": "i32", "i2": "i16", "i1": "i8", "u4": "u32", "u2": "u16", "u1": "u8", "b1": "bool"}
_STORAGE = {**_FLOATS, **_INTEGERS}

# what zipfile and zlib raise for a file that is not what it should be
_ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,
    RuntimeError,
)


@dataclass(frozen=True, slots=True)
class _Member:
    """An array inside the zip: its zip name, what its header says, and the header's length in bytes."""

    zip_name: str
    dtype: np.dtype[Any]
    fortran: bool
    header: int


class NpzCheckpoint:
    """The arrays of a `.npz`. Reading a range of rows reads the member up to its end of the range."""

    def __init__(self, file: SourceFile) -> None:
        self._file = file
        self._members: dict[str, _Member] = {}
        tensors: dict[str, TensorInfo] = {}
        found = Diagnostics()
        with self._archive() as archive:
            for entry in archive.infolist():
                try:
                    name, member, shape = self._look(archive, entry)
                    if name in tensors:
                        raise self._broken(f"has the array '{name}' twice")
                except FlowError as error:
                    found.include(error)
                    continue
                self._members[name] = member
                tensors[name] = TensorInfo(name, shape, _STORAGE[member.dtype.str[1:]], file.path)
        found.raise_if_any()
        self._tensors = MappingProxyType(tensors)

    @classmethod
    def open(cls, path: Path) -> NpzCheckpoint:
        """WeightsError `broken-npz`, `unsupported-dtype`, or as `SourceFile`."""
        return cls(SourceFile.open(path))

    def tensors(self) -> Mapping[str, TensorInfo]:
        """All arrays by name. None is `plain`: a zip may hold them deflated."""
        return self._tensors

    def read(self, name: str, rows: slice | None = None) -> Array:
        """See `Checkpoint.read`; needs memory for the stored array too when it lies column by column."""
        shape = find(self._tensors, name).shape
        begin, end = row_range(rows, shape)
        member = self._members[name]
        result = np.dtype(np.float32 if member.dtype.kind == "f" else np.int64)
        with self._archive() as archive, archive.open(member.zip_name) as stream:
            if member.fortran and len(shape) > 1:
                flat = _read(stream, member, 0, math.prod(shape), member.dtype)
                return np.ascontiguousarray(_cast(flat.reshape(shape, order="F")[begin:end], result))
            row = math.prod(shape[1:])
            flat = _read(stream, member, begin * row, (end - begin) * row, result)
        return flat.reshape((end - begin, *shape[1:]) if shape else ())

    def files(self) -> tuple[Path, ...]:
        """The one file."""
        return (self._file.path,)

    def describe(self) -> str:
        """Format and number of arrays."""
        return f"npz, 1 file, {len(self._tensors)} tensors"

    @contextmanager
    def _archive(self) -> Generator[zipfile.ZipFile]:
        self._file.check_unchanged()
        try:
            with zipfile.ZipFile(self._file.path) as archive:
                yield archive
        except FlowError:
            raise
        except _ZIP_ERRORS as error:
            raise self._broken(f"cannot be read: {error}") from None

    def _look(self, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> tuple[str, _Member, tuple[int, ...]]:
        name = entry.filename.removesuffix(".npy")
        if name == entry.filename:
            raise self._broken(f"holds '{name}', which is not an .npy array")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) or entry.flag_bits & 1:
            raise self._broken(f"holds '{name}' encrypted or compressed in a way numpy does not write")
        if entry.compress_size > self._file.size or entry.file_size > entry.compress_size * _MAX_INFLATION + 1024:
            raise self._broken(f"says that '{name}' has {entry.file_size} bytes, which its file cannot hold")
        with archive.open(entry) as stream:
            shape, fortran, dtype = _read_array_header(stream)
            header = stream.tell()
        if dtype.hasobject or dtype.str[1:] not in _STORAGE:
            raise WeightsError.of("unsupported-dtype", f"tensor '{name}' is a numpy array of {dtype}, not of numbers")
        size = header + math.prod(shape) * dtype.itemsize
        if size != entry.file_size:
            raise self._broken(f"gives '{name}' {entry.file_size} bytes, but {dtype}{list(shape)} takes {size}")
        return name, _Member(entry.filename, dtype, fortran, header), shape

    def _broken(self, fault: str) -> FlowError:
        return WeightsError.of("broken-npz", f"'{self._file.path}' {fault}")


def _read_array_header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether columns come first, and element type. ValueError says what is wrong.

    Format 1.0 only: numpy writes the later ones for structured types alone. numpy's own reader of headers is less
    strict (tests/weights/test_npz.py): it takes negative sizes and booleans, and other errors of Python's parser pass.
    """
    start = stream.read(10)
    if start[:8] != b"\x93NUMPY\x01\x00" or len(start) != 10:
        raise ValueError("a member is not an array in npy format 1.0")
    length = int.from_bytes(start[8:], "little")
    if length > _MAX_HEADER:
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
    if len(dims) > 64 or not all(type(dim) is int and 0 <= dim < 1 << 63 for dim in dims):
        raise ValueError("an array header gives a shape that is not a tuple of whole numbers")
    try:
        return cast("tuple[int, ...]", dims), fortran, np.dtype(descr)
    except TypeError:
        raise ValueError(f"an array header gives the unknown type {descr[:80]!r}") from None


def _read(stream: IO[bytes], member: _Member, begin: int, count: int, result: np.dtype[Any]) -> npt.NDArray[Any]:
    """Elements [begin, begin + count) of a member, flat, converted piece by piece."""
    item = member.dtype.itemsize
    _skip(stream, member.header + begin * item)
    out = np.empty(count, result)
    for done in range(0, count, _PIECE):
        part = out[done : done + _PIECE]
        data = stream.read(part.size * item)
        if len(data) != part.size * item:
            raise EOFError("it ends too early")
        part[:] = _cast(np.frombuffer(data, member.dtype), result)
    return out


def _skip(stream: IO[bytes], count: int) -> None:
    while count:
        data = stream.read(min(count, _PIECE))
        if not data:
            raise EOFError("it ends too early")
        count -= len(data)


def _cast(array: npt.NDArray[Any], result: np.dtype[Any]) -> npt.NDArray[Any]:
    with np.errstate(over="ignore"):  # a float64 too large becomes inf, which the finite check names
        return array.astype(result, copy=False)
