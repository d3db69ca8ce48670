"""A progress bar on stderr, for people at a terminal only."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Generator
from typing import Any

import click

from flowc.cli.failing import watched

_QUIET_SECONDS = 0.5
"""What is done by then needs no bar."""


class Progress:
    """Shows what is being done and how much of it is: one line, gone when something else is done or all is."""

    def __init__(self) -> None:
        self._what = ""
        self._begun = 0.0
        self._bar: Any = None

    def __call__(self, what: str, done: int, total: int, text: str = "") -> None:
        """So much of so much of something is done; `text` says it for people."""
        if what != self._what:
            self.close()
            self._what, self._begun = what, time.monotonic()
        if self._bar is None:
            if time.monotonic() - self._begun < _QUIET_SECONDS:
                return
            self._bar = click.progressbar(
                length=max(total, 1), label=what, file=sys.stderr, width=30, show_pos=not text, show_percent=True,
                item_show_func=lambda item: None if item is None else str(item),
            )  # fmt: skip
            self._bar.__enter__()
        self._bar.update(done - self._bar.pos, text or None)

    def of_bytes(self, what: str) -> Callable[[int, int], None]:
        """A function of bytes done and bytes in all."""
        return lambda done, total: self(what, done, total, f"{size(done)} of {size(total)}")

    def close(self) -> None:
        """Take the line away."""
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            sys.stderr.write("\x1b[A\r\x1b[K")  # click ends its bar with a new line
            sys.stderr.flush()
        self._what, self._bar = "", None


@contextlib.contextmanager
def progress() -> Generator[Progress | None]:
    """What shows progress; None when nobody watches."""
    if not watched():
        yield None
        return
    shown = Progress()
    try:
        yield shown
    finally:
        shown.close()


def size(count: int) -> str:
    """A number of bytes for people: 512 B, 1.2 kB, 3.4 GB (powers of 1000)."""
    if count < 1000:
        return f"{count} B"
    units = ("kB", "MB", "GB", "TB", "PB")
    power = next((i for i in range(len(units)) if count < 999.95 * 1000 ** (i + 1)), len(units) - 1)
    return f"{count / 1000 ** (power + 1):.1f} {units[power]}"
