"""What is being done, how much of it, how fast and how long yet: a line on stderr, for people at a terminal only."""

from __future__ import annotations

import contextlib
import shutil
import sys
import threading
import time
from collections.abc import Generator

from flowc.cli.failing import watched

_QUIET_SECONDS = 0.5
"""What is done by then needs no line."""
_AGAIN_SECONDS = 0.25
"""How often the line is drawn: a step that tells nothing for minutes shows that it lives."""
_BAR, _LEAST_BAR = 30, 5
_WIPE = "\r\x1b[K"


class Progress:
    """One line that is drawn again and again, and gone when something else is done or all is."""

    def __init__(self) -> None:
        self._what = ""
        self._begun = 0.0
        self._done = self._total = 0
        self._drawn = False
        self._lock = threading.Lock()

    def __call__(self, what: str, done: int, total: int) -> None:
        """So much of so much of something is done; a total of 0 where nobody knows how much there is."""
        with self._lock:
            if what != self._what:
                self._wipe()
                self._what, self._begun = what, time.monotonic()
            self._done, self._total = done, total
        self.tick()

    def tick(self) -> None:
        """Draw the line again, if what is done takes long enough to have one."""
        with self._lock:
            seconds = time.monotonic() - self._begun
            if not self._what or seconds < _QUIET_SECONDS:
                return
            columns = shutil.get_terminal_size().columns
            sys.stderr.write(_WIPE + _line(self._what, self._done, self._total, seconds, columns - 1))
            sys.stderr.flush()
            self._drawn = True

    def close(self) -> None:
        """Take the line away."""
        with self._lock:
            self._wipe()
            self._what = ""

    def _wipe(self) -> None:
        if self._drawn:
            sys.stderr.write(_WIPE)
            sys.stderr.flush()
        self._drawn = False


def _line(what: str, done: int, total: int, seconds: float, columns: int) -> str:
    """What is done: a bar, the share, the count, the rate and the rest; without a total the time alone.

    The bar gives way where there are few columns.
    """
    from flowc.api.building import WRITING

    if total <= 0:
        return f"{what}  {_duration(seconds)}"[:columns]
    share = min(1.0, done / total)
    counted = f"{size(done)} of {size(total)}" if what == WRITING else f"{done} of {total}"
    parts = [counted]
    if done:
        rate = done / seconds
        each = f"{rate:.1f}/s" if rate >= 1 else f"{_duration(1 / rate)} each"
        parts.append(f"{size(int(rate))}/s" if what == WRITING else each)
        parts.append(f"{_duration((total - done) / rate)} left")
    told = f"  {share:4.0%}  {', '.join(parts)}"
    room = min(_BAR, columns - len(what) - len(told) - len("  []"))
    bar = f"  [{'#' * int(room * share):-<{room}}]" if room >= _LEAST_BAR else ""
    return f"{what}{bar}{told}"[:columns]


def _duration(seconds: float) -> str:
    """Seconds for people: 0.4 s, 12 s, 3:05 min, 1:02:00 h."""
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min"


@contextlib.contextmanager
def progress(what: str = "") -> Generator[Progress | None]:
    """What shows progress, `what` to begin with; None when nobody watches."""
    if not watched():
        yield None
        return
    shown, over = Progress(), threading.Event()

    def draw() -> None:
        while not over.wait(_AGAIN_SECONDS):
            shown.tick()

    thread = threading.Thread(target=draw, name="progress", daemon=True)
    thread.start()
    if what:
        shown(what, 0, 0)
    try:
        yield shown
    finally:
        over.set()
        thread.join()
        shown.close()


def size(count: int) -> str:
    """A number of bytes for people: 512 B, 1.2 kB, 3.4 GB (powers of 1000)."""
    if count < 1000:
        return f"{count} B"
    units = ("kB", "MB", "GB", "TB", "PB")
    power = next((i for i in range(len(units)) if count < 999.95 * 1000 ** (i + 1)), len(units) - 1)
    return f"{count / 1000 ** (power + 1):.1f} {units[power]}"
