"""Builds that use safetensors where they lie: what may be, where each tensor is, and what the manifest says of it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from flowc.build.data import InPlace, in_place_reader
from flowc.build.manifest_keys import UsedInPlace
from flowc.errors import WeightsError
from flowc.weights import Checkpoint
from flowc.weights.safetensors import MAX_HEADER

_STORED = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}


def locator(checkpoint: Checkpoint, folder: Path, dtype: str) -> InPlace:
    """Locates plain tensors of the build's type in checkpoint files that lie in the output folder.

    Refuses what runtimes refuse.
    """
    files = checkpoint.files()
    if not files or any(f.suffix != ".safetensors" for f in files):
        raise WeightsError.of("in-place", "--in-place needs weights in safetensors files")
    for file in files:
        if file.parent.resolve() != folder.resolve():
            reason = "does not lie in the output folder"
        elif file.is_symlink():
            reason = "is a symbolic link, which onnx and onnxruntime refuse"
        elif file.stat().st_nlink != 1:
            reason = "has more than one hard link, which onnx and onnxruntime refuse"
        else:
            continue
        raise WeightsError.of("in-place", f"--in-place cannot use '{file.name}': it {reason}")
    infos = checkpoint.tensors()
    if not any(i.plain and i.storage == _STORED[dtype] for i in infos.values()):
        raise WeightsError.of("in-place", f"--in-place needs weights in the graph's element type, {dtype}")

    def locate(name: str) -> tuple[str, int, int] | None:
        info = infos.get(name)
        stored = info is not None and info.plain and info.storage == _STORED[dtype]
        if info is None or info.path is None or not stored or not info.shape:
            return None
        return info.path.name, info.offset, info.nbytes // info.shape[0]

    return in_place_reader(locate, dtype)


def records_of(checkpoint: Checkpoint) -> list[dict[str, Any]]:
    """What the manifest says of files that are used where they lie."""
    return [dict(vars(record_of(file))) for file in checkpoint.files()]


def record_of(file: Path) -> UsedInPlace:
    """A file's header hash, size and time: no hash of the whole, which would read it all."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = stream.read(min(length, MAX_HEADER))
    stat = file.stat()
    sha256 = hashlib.sha256(header).hexdigest()
    return UsedInPlace(file=file.name, header_sha256=sha256, bytes=stat.st_size, modified_ns=stat.st_mtime_ns)
