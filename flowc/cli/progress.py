"""A progress bar on stderr, for people at a terminal only."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Generator

from flowc.cli.failing import watched

_WIDTH = 30
_QUIET_SECONDS = 0.5
"""What is done by then needs no bar."""


@contextlib.contextmanager
def progress(label: str) -> Generator[Callable[[int, int], None] | None]:
    """A function of bytes done and bytes in all that draws a bar; None when nobody watches. The bar goes at the end."""
    if not watched():
        yield None
        return
    begun, last = time.monotonic(), 0.0

    def draw(done: int, total: int) -> None:
        nonlocal last
        now = time.monotonic()
        if now - begun < _QUIET_SECONDS or now - last < 0.1:
            return
        last = now
        sys.stderr.write("\r" + bar(label, done, total))
        sys.stderr.flush()

    try:
        yield draw
    finally:
        if last:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()


def bar(label: str, done: int, total: int) -> str:
    """One line such as `writing [######------]  50%  1.2 of 2.4 GB`."""
    filled = _WIDTH * done // total if total else _WIDTH
    share = 100 * done // total if total else 100
    return f"{label} [{'#' * filled}{'-' * (_WIDTH - filled)}] {share:3d}%  {size(done)} of {size(total)}"


def size(count: int) -> str:
    """A number of bytes for people: 512 B, 1.2 kB, 3.4 GB (powers of 1000)."""
    if count < 1000:
        return f"{count} B"
    units = ("kB", "MB", "GB", "TB", "PB")
    power = next((i for i in range(len(units)) if count < 999.95 * 1000 ** (i + 1)), len(units) - 1)
    return f"{count / 1000 ** (power + 1):.1f} {units[power]}"
