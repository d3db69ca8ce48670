"""GGUF checkpoints: llama.cpp's files under HuggingFace's names, in HuggingFace's layout, dequantised to float32."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

from flowc.errors import WeightsError
from flowc.ir.weights.blocks import AsStored
from flowc.weights.checkpoint import Array, TensorInfo, find, no_blocks, row_range
from flowc.weights.files import SourceFile
from flowc.weights.gguf.architectures import TensorSlice, huggingface_parts
from flowc.weights.gguf.header import GgufTensor, read_header
from flowc.weights.storage import STORAGES, read_plain

_PIECE = 1 << 16  # values dequantised at a time: larger pieces leave the processor's cache
_QUANTISED = frozenset(
    GGMLQuantizationType[name]
    for name in ("Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")
)


_TYPES = {
    "adapter": "an adapter (LoRA), which changes another model's weights",
    "mmproj": "the projector of a multimodal model (mmproj)",
    "vocab": "a vocabulary",
    "imatrix": "an importance matrix",
}
"""What a GGUF is by its `general.type`."""


class GgufCheckpoint:
    """One GGUF file. `metadata` holds its key-value pairs as plain Python values."""

    def __init__(self, file: SourceFile) -> None:
        self._file = file
        self.metadata, tensors = read_header(file)
        kind = self.metadata.get("general.type", "model")
        if kind != "model":
            what = _TYPES.get(str(kind), f"of the type {str(kind)[:40]!r}")
            raise WeightsError.of("unsupported-gguf", f"'{file.path}' is {what}, not a model")
        architecture = self.metadata.get("general.architecture")
        if not isinstance(architecture, str):
            raise WeightsError.of("broken-gguf", f"'{file.path}' does not name its architecture")
        if self.metadata.get("split.count", 0) not in (0, 1):
            hint = "merge the parts with llama.cpp's gguf-split"
            raise WeightsError.of("unsupported-gguf", f"'{file.path}' is one part of a split model", hint=hint)
        self.architecture = architecture
        self._parts = huggingface_parts(architecture, self.metadata, tensors)
        self._tensors = MappingProxyType({name: self._info(part) for name, part in self._parts.items()})

    @classmethod
    def open(cls, path: Path) -> GgufCheckpoint:
        """WeightsError `broken-gguf`, `unsupported-architecture`, `unsupported-dtype`, or as `SourceFile`."""
        return cls(SourceFile.open(path))

    @property
    def tensor_names(self) -> Mapping[str, str]:
        """GGUF's name of each tensor, by HuggingFace's name."""
        return {name: part.source.name for name, part in self._parts.items()}

    def tensors(self) -> Mapping[str, TensorInfo]:
        """All tensors by HuggingFace name."""
        return self._tensors

    def read(self, name: str, rows: slice | None = None) -> Array:
        """See `Checkpoint.read`. Quantised values become the float32 that llama.cpp's own formulas give."""
        info = find(self._tensors, name, blocks=True)
        part = self._parts[name]
        begin, end = row_range(rows, part.shape)
        if isinstance(name, AsStored):
            return self._blocks(info, part, begin, end)
        row = math.prod(part.shape[1:])
        out = self._deinterleaved(part, begin, end, row) if part.heads else self._rows(part, begin, end, row)
        if part.minus:
            out -= np.float32(part.minus)
        return out.reshape((end - begin, *part.shape[1:]) if part.shape else ())

    def files(self) -> tuple[Path, ...]:
        """The one file."""
        return (self._file.path,)

    def describe(self) -> str:
        """Format, architecture and number of tensors."""
        return f"gguf, {self.architecture}, 1 file, {len(self._tensors)} tensors"

    def _info(self, part: TensorSlice) -> TensorInfo:
        source = part.source
        storage = source.type.name.lower()
        block, block_bytes = GGML_QUANT_SIZES[source.type]
        row_bytes = math.prod(part.shape[1:]) // block * block_bytes
        as_stored = storage in STORAGES and not part.heads and not part.minus
        if part.shape == source.shape:
            return TensorInfo(part.name, part.shape, storage, self._file.path, source.offset, source.nbytes, as_stored)
        offset, nbytes = source.offset + part.first_row * row_bytes, part.shape[0] * row_bytes
        return TensorInfo(part.name, part.shape, storage, self._file.path, offset, nbytes, as_stored)

    def _rows(self, part: TensorSlice, begin: int, end: int, row: int) -> npt.NDArray[Any]:
        return self._values(part.source, (part.first_row + begin) * row, (end - begin) * row)

    def _deinterleaved(self, part: TensorSlice, begin: int, end: int, row: int) -> npt.NDArray[Any]:
        """Rows in HuggingFace's order: of a head's rows, GGUF's pairs (2i, 2i + 1) are rows i and i + half."""
        size = part.shape[0] // part.heads
        out = np.empty((end - begin, row), np.float32)
        for head in range(begin // size, -(-end // size)):
            first = head * size
            pairs = self._rows(part, first, first + size, row).reshape(size // 2, 2, row)
            ordered = pairs.swapaxes(0, 1).reshape(size, row)
            low, high = max(begin, first), min(end, first + size)
            out[low - begin : high - begin] = ordered[low - first : high - first]
        return out

    def _blocks(self, info: TensorInfo, part: TensorSlice, begin: int, end: int) -> Array:
        """The blocks of rows of a matrix, in HuggingFace's order of rows."""
        block, block_bytes = GGML_QUANT_SIZES[part.source.type]
        columns = part.shape[-1] if len(part.shape) == 2 else 0
        if part.source.type not in _QUANTISED or part.minus or not columns or columns % block:
            raise no_blocks(info)
        row_bytes = columns // block * block_bytes
        size = part.shape[0] // part.heads if part.heads else 1
        first, last = begin // size * size, -(-end // size) * size
        start = part.source.offset + (part.first_row + first) * row_bytes
        raw = self._file.read(start, (last - first) * row_bytes).reshape(-1, row_bytes)
        if not part.heads:
            return raw
        # Of a head's rows, GGUF's pairs (2i, 2i + 1) are rows i and i + half.
        head, row = np.divmod(np.arange(begin - first, end - first), size)
        return raw[head * size + row % (size // 2) * 2 + row // (size // 2)]

    def _values(self, tensor: GgufTensor, begin: int, count: int) -> npt.NDArray[Any]:
        """Values [begin, begin + count) of a GGUF tensor in the file's order, flat."""
        storage = tensor.type.name.lower()
        if storage in STORAGES:
            offset = tensor.offset + begin * STORAGES[storage].bits // 8
            return read_plain(self._file, offset, storage, count, tensor.name)
        if tensor.type not in _QUANTISED:
            message = f"tensor '{tensor.name}' is stored as {tensor.type.name}, which flowc does not read"
            raise WeightsError.of("unsupported-dtype", message, hint="re-quantise it, for example to Q8_0 or Q4_K")
        block, block_bytes = GGML_QUANT_SIZES[tensor.type]
        first, end = begin // block, -(-(begin + count) // block)
        out = np.empty((end - first) * block, np.float32)
        step = _PIECE // block
        for at in range(first, end, step):
            blocks = min(step, end - at)
            raw = self._file.read(tensor.offset + at * block_bytes, blocks * block_bytes)
            place = (at - first) * block
            # broken scales overflow to inf, which the finite check names
            with np.errstate(all="ignore"):
                out[place : place + blocks * block] = dequantize(raw.reshape(1, -1), tensor.type).reshape(-1)
        skipped = begin - first * block
        return out[skipped : skipped + count]
