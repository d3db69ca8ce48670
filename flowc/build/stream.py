"""The data file of a build, written on a thread of its own while the graphs are emitted."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from flowc.build.data import Layout, write
from flowc.build.weight_reader import WeightReader
from flowc.errors import InternalError
from flowc.ir.weights.expressions import Weight

Progress = Callable[[int, int], None]
"""Bytes written, bytes in all."""


@contextlib.contextmanager
def streaming(reader: WeightReader, layout: Layout, path: Path, progress: Progress | None) -> Generator[Future[str]]:
    """Streams the data file on a thread of its own; the future gives its sha256. Leaving early stops the stream."""
    stop = threading.Event()

    def check(array: Any, weight: Weight) -> None:
        if stop.is_set():
            raise InternalError("the build was stopped")
        reader.check(array, weight)

    def report(done: int) -> None:
        if progress is not None:
            progress(done, layout.size)

    with ThreadPoolExecutor(max_workers=1) as pool:
        future = pool.submit(write, layout, path, reader.read, check, report) if layout.stored else Future[str]()
        try:
            yield future
            if layout.stored:
                future.result()
        except BaseException:
            stop.set()
            raise
