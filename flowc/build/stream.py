"""The data files of a build, written on a thread of its own while the graphs are emitted."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from flowc.build.data import Layout, write
from flowc.build.weight_reader import WeightReader
from flowc.errors import InternalError
from flowc.ir.weights.expressions import Array, Weight

Progress = Callable[[int, int], None]
"""Bytes written, bytes in all."""


@contextlib.contextmanager
def streaming(
    reader: WeightReader, layout: Layout, folder: Path, progress: Progress | None
) -> Generator[Future[dict[str, str]]]:
    """Streams the data files on a thread of its own; the future gives their sha256. Leaving early stops the stream."""
    stop = threading.Event()

    def check(piece: Array, weight: Weight, row: int) -> None:
        if stop.is_set():
            raise InternalError("the build was stopped")
        reader.check(piece, weight, row)

    def report(done: int) -> None:
        if progress is not None:
            progress(done, layout.size)

    with ThreadPoolExecutor(max_workers=1) as pool:
        future = pool.submit(write, layout, folder, reader.read, check, report)
        try:
            yield future
            future.result()
        except BaseException:
            stop.set()
            raise
