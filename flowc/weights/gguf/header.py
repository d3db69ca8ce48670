"""The header of a GGUF file (versions 2 and 3): metadata, and where each tensor lies.

Every count, length and offset is checked against the file's size before anything is allocated for it, so that no
crafted file costs more than a small multiple of its own header. The `gguf` library's reader does not do that; it
also maps the file (a file that shrinks then kills the process), and takes 10 s for the header of a model with
262144 tokens. So flowc takes from that library what defines the format (types, block sizes, dequantisation), and
reads the header itself.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import itertools
import math
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NoReturn

from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType

from flowc.errors import WeightsError
from flowc.weights.files import SourceFile

_MAX_HEADER = 1 << 27  # bytes; the largest vocabularies need a quarter of it
_MAX_VALUES = 1 << 24  # in one metadata array
_MAX_TENSORS = 1 << 17
_MAX_PAIRS = 1 << 16
_MAX_KEY = (1 << 16) - 1  # bytes, from the format's description
_MAX_NAME = 1024  # bytes; the format says 64, writers exceed it
_MAX_DIMS = 4
_GROWTH = 1 << 20

_SCALARS = {
    GGUFValueType.UINT8: "<B",
    GGUFValueType.INT8: "<b",
    GGUFValueType.UINT16: "<H",
    GGUFValueType.INT16: "<h",
    GGUFValueType.UINT32: "<I",
    GGUFValueType.INT32: "<i",
    GGUFValueType.FLOAT32: "<f",
    GGUFValueType.BOOL: "<?",
    GGUFValueType.UINT64: "<Q",
    GGUFValueType.INT64: "<q",
    GGUFValueType.FLOAT64: "<d",
}


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """A tensor as GGUF names it. `shape` is row-major, GGUF's own order reversed; `offset` is the file's."""

    name: str
    shape: tuple[int, ...]
    type: GGMLQuantizationType
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class _Stored:
    """A metadata value's place in the header; `count` is None for a scalar."""

    type: GGUFValueType
    offset: int
    count: int | None


class GgufMetadata(Mapping[str, object]):
    """Metadata as plain Python values: int, float, bool, str, and lists of these, decoded when asked for."""

    def __init__(self, path: str, data: bytes, stored: Mapping[str, _Stored]) -> None:
        self._path = path
        self._data = data
        self._stored = stored

    def __getitem__(self, key: str) -> object:
        """WeightsError `broken-gguf` when a text is not UTF-8."""
        place = self._stored[key]
        count = 1 if place.count is None else place.count
        values: list[object]
        if place.type is GGUFValueType.STRING:
            values = list(self._strings(key, place.offset, count))
        else:
            code = _SCALARS[place.type]
            values = list(struct.unpack_from(f"<{count}{code[1]}", self._data, place.offset))
        return values[0] if place.count is None else values

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)

    def _strings(self, key: str, offset: int, count: int) -> Iterator[str]:
        data = self._data
        for _ in range(count):
            begin = offset + 8
            offset = begin + int.from_bytes(data[offset:begin], "little")
            try:
                yield data[begin:offset].decode("utf-8")
            except UnicodeDecodeError:
                _broken(self._path, f"has text in '{key}' that is not UTF-8")


def read_header(file: SourceFile) -> tuple[GgufMetadata, tuple[GgufTensor, ...]]:
    """Metadata and tensors of a GGUF file.

    WeightsError `broken-gguf` for what breaks the format or does not fit the file, `unsupported-dtype` for a tensor
    type that flowc does not know, or as `SourceFile`.
    """
    cursor = _Cursor(file)
    if file.size < 24:
        cursor.broken(f"has {file.size} bytes, too few for a header")
    if cursor.take(4) != b"GGUF":
        cursor.broken("does not begin with 'GGUF'")
    version = cursor.integer(4)
    if version & 0xFFFF == 0:
        cursor.broken("is big-endian, which flowc does not read")
    if version not in (2, 3):
        cursor.broken(f"has version {version}; flowc reads 2 and 3")
    tensor_count, pair_count = cursor.integer(8), cursor.integer(8)
    if tensor_count > _MAX_TENSORS or pair_count > _MAX_PAIRS:
        cursor.broken(f"announces {tensor_count} tensors and {pair_count} metadata pairs, more than any model has")
    stored: dict[str, _Stored] = {}
    for _ in range(pair_count):
        key = cursor.text(_MAX_KEY, "a metadata key")
        if key in stored:
            cursor.broken(f"has the metadata key '{key}' twice")
        stored[key] = _skip_value(cursor, key)
    announced = [_read_tensor(cursor) for _ in range(tensor_count)]
    metadata = GgufMetadata(str(file.path), cursor.seen(), stored)
    return metadata, _place(cursor, announced, metadata)


class _Cursor:
    """Reads a header front to back; asks the file for no more than the header claims and the file has."""

    def __init__(self, file: SourceFile) -> None:
        self._file = file
        self._data = b""
        self.position = 0

    @property
    def size(self) -> int:
        return self._file.size

    def broken(self, fault: str) -> NoReturn:
        _broken(str(self._file.path), fault)

    def seen(self) -> bytes:
        """The header read so far."""
        return self._data[: self.position]

    def take(self, count: int) -> bytes:
        begin = self.position
        self.skip(count)
        return self._data[begin : self.position]

    def skip(self, count: int) -> None:
        end = self.position + count
        if end > len(self._data):
            self._grow(end)
        self.position = end

    def integer(self, size: int) -> int:
        return int.from_bytes(self.take(size), "little")

    def text(self, limit: int, what: str) -> str:
        length = self.integer(8)
        if length > limit:
            self.broken(f"has {what} of {length} bytes")
        try:
            return self.take(length).decode("utf-8")
        except UnicodeDecodeError:
            self.broken(f"has {what} that is not UTF-8")

    def skip_strings(self, count: int) -> None:
        """Pass over a list of strings; a tight loop, since vocabularies have hundreds of thousands."""
        position, data = self.position, self._data
        for _ in range(count):
            begin = position + 8
            if begin > len(data):
                self._grow(begin)
                data = self._data
            position = begin + int.from_bytes(data[position:begin], "little")
        self.position = begin = position
        if begin > len(data):
            self._grow(begin)

    def _grow(self, end: int) -> None:
        if end > self._file.size:
            self.broken(f"ends after {self._file.size} bytes, in the middle of its header; is it cut short?")
        if end > _MAX_HEADER:
            self.broken(f"has a header of more than {_MAX_HEADER} bytes")
        target = min(self._file.size, _MAX_HEADER, max(end, 2 * len(self._data), _GROWTH))
        self._data += self._file.read(len(self._data), target - len(self._data)).tobytes()


def _skip_value(cursor: _Cursor, key: str) -> _Stored:
    kind = _value_type(cursor, key)
    if kind is not GGUFValueType.ARRAY:
        offset = cursor.position
        if kind is GGUFValueType.STRING:
            cursor.skip_strings(1)
        else:
            cursor.skip(struct.calcsize(_SCALARS[kind]))
        return _Stored(kind, offset, None)
    kind = _value_type(cursor, key)
    if kind is GGUFValueType.ARRAY:
        cursor.broken(f"has arrays inside the array '{key}', which flowc does not read")
    count, offset = cursor.integer(8), cursor.position
    least = 8 if kind is GGUFValueType.STRING else struct.calcsize(_SCALARS[kind])
    if count > _MAX_VALUES or count * least > cursor.size - offset:
        cursor.broken(f"announces {count} values in '{key}', more than it can hold; is it cut short?")
    if kind is GGUFValueType.STRING:
        cursor.skip_strings(count)
    else:
        cursor.skip(count * least)
    return _Stored(kind, offset, count)


def _value_type(cursor: _Cursor, key: str) -> GGUFValueType:
    code = cursor.integer(4)
    try:
        return GGUFValueType(code)
    except ValueError:
        cursor.broken(f"gives '{key}' the unknown value type {code}")


def _read_tensor(cursor: _Cursor) -> GgufTensor:
    """A tensor with its offset still counted from the start of the data."""
    name = cursor.text(_MAX_NAME, "a tensor name")
    dims = cursor.integer(4)
    if dims > _MAX_DIMS:
        cursor.broken(f"gives tensor '{name}' {dims} dimensions; the format allows {_MAX_DIMS}")
    shape = tuple(cursor.integer(8) for _ in range(dims))[::-1]
    code, offset = cursor.integer(4), cursor.integer(8)
    try:
        kind = GGMLQuantizationType(code)
    except ValueError:
        message = f"tensor '{name}' has the GGUF type {code}, which flowc does not know"
        raise WeightsError.of("unsupported-dtype", message) from None
    block, block_bytes = GGML_QUANT_SIZES[kind]
    count = math.prod(shape)
    if 0 in shape or count >= 1 << 63:
        cursor.broken(f"gives tensor '{name}' the shape {list(shape)}")
    if shape and shape[-1] % block:
        cursor.broken(f"gives tensor '{name}' rows of {shape[-1]} values; {kind.name} packs {block} together")
    return GgufTensor(name, shape, kind, offset, count // block * block_bytes)


def _place(cursor: _Cursor, announced: list[GgufTensor], metadata: GgufMetadata) -> tuple[GgufTensor, ...]:
    """The tensors with their offsets in the file, checked: aligned, inside the file, apart, and named once."""
    alignment = metadata.get("general.alignment", 32)
    if type(alignment) is not int or not 8 <= alignment <= 1 << 16 or alignment & (alignment - 1):
        cursor.broken(f"has the alignment {alignment}")
    start = -(-cursor.position // alignment) * alignment
    tensors = tuple(GgufTensor(t.name, t.shape, t.type, start + t.offset, t.nbytes) for t in announced)
    names: set[str] = set()
    for tensor in tensors:
        if tensor.name in names:
            cursor.broken(f"has tensor '{tensor.name}' twice")
        names.add(tensor.name)
        if (tensor.offset - start) % alignment:
            cursor.broken(f"places tensor '{tensor.name}' off its alignment of {alignment}")
        if tensor.offset + tensor.nbytes > cursor.size:
            where = f"bytes {tensor.offset} to {tensor.offset + tensor.nbytes} of {cursor.size}"
            cursor.broken(f"places tensor '{tensor.name}' outside of the file: {where}; is it cut short?")
    ordered = sorted(tensors, key=lambda t: t.offset)
    for first, second in itertools.pairwise(ordered):
        if first.offset + first.nbytes > second.offset:
            cursor.broken(f"lets tensors '{first.name}' and '{second.name}' overlap")
    return tensors


def _broken(path: str, fault: str) -> NoReturn:
    raise WeightsError.of("broken-gguf", f"'{path}' {fault}")
