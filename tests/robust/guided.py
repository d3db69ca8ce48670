"""Fuzzing that follows the code's branches (atheris): each reader of untrusted bytes reads them, or refuses them.

    pip install atheris
    python -m tests.robust.guided yaml -runs=100000 [SEEDS ...]

Further arguments are libFuzzer's. Anything but a result or a FlowError ends the process with the input that did it.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flowc.errors import FlowError
from flowc.text.source import parse
from flowc.weights import open_checkpoint

Reader = Callable[[bytes], object]


def _file(suffix: str, read: Callable[[Path], object]) -> Reader:
    path = Path(tempfile.mkdtemp(prefix="guided-")) / f"x{suffix}"

    def reader(content: bytes) -> object:
        path.write_bytes(content)
        return read(path)

    return reader


def _weights(path: Path) -> None:
    checkpoint = open_checkpoint(path)
    for name, tensor in checkpoint.tensors().items():
        if tensor.nbytes < 1 << 16:
            checkpoint.read(name)


READERS: dict[str, Callable[[], Reader]] = {
    "yaml": lambda: lambda content: parse(content.decode("utf-8", "replace"), "x.yaml"),
    "json": lambda: lambda content: parse(content.decode("utf-8", "replace"), "x.json", json=True),
    "safetensors": lambda: _file(".safetensors", _weights),
    "gguf": lambda: _file(".gguf", _weights),
    "npz": lambda: _file(".npz", _weights),
}


def main(arguments: list[str]) -> None:
    """Fuzz one reader for as many runs as libFuzzer is told."""
    atheris: Any = importlib.import_module("atheris")
    read = READERS[arguments[1]]()

    def one(content: bytes) -> None:
        with contextlib.suppress(FlowError):
            read(content)

    atheris.instrument_all()
    atheris.Setup([arguments[0], *arguments[2:]], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
