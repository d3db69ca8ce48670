"""Makes weight files, whole and broken, and says which error a reader must raise."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from gguf import GGMLQuantizationType, GGUFWriter

from flowc.errors import WeightsError


@contextmanager
def refused(code: str, *words: str) -> Generator[None]:
    """The block must raise a WeightsError whose first diagnostic has this code and whose text has these words."""
    with pytest.raises(WeightsError) as caught:
        yield
    assert caught.value.diagnostics[0].code == code, caught.value.render()
    for word in words:
        assert word in caught.value.render()


def safetensors_bytes(header: Mapping[str, Any] | bytes, data: bytes, *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


def write_gguf(
    path: Path,
    tensors: Mapping[str, npt.NDArray[Any] | tuple[npt.NDArray[np.uint8], GGMLQuantizationType]],
    arch: str = "llama",
    **metadata: Any,
) -> Path:
    """A GGUF by the reference writer. A key's `__` stands for a dot; `(bytes, type)` gives quantised rows."""
    writer = GGUFWriter(path, arch)
    for name, value in metadata.items():
        key = name.replace("__", ".")
        if isinstance(value, bool):
            writer.add_bool(key, value)
        elif isinstance(value, int):
            writer.add_uint32(key, value)
        elif isinstance(value, float):
            writer.add_float32(key, value)
        elif isinstance(value, str):
            writer.add_string(key, value)
        else:
            writer.add_array(key, value)
    for name, tensor in tensors.items():
        if isinstance(tensor, tuple):
            writer.add_tensor(name, tensor[0], raw_dtype=tensor[1])
        else:
            writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def model_file(name: str) -> Path:
    """A file that `examples/fetch.py` fetched; the test is skipped where it was not."""
    cache = Path(os.environ.get("FLOWC_CACHE") or Path.home() / ".cache" / "flowc")
    if not (cache / "models" / name).exists():
        pytest.skip(f"{name} is not fetched: run examples/fetch.py")
    return cache / "models" / name
