"""SIGTERM and Ctrl-C unwind a command, so that unfinished files are removed; but never in the midst of an import.

C code that initialises itself answers an exception with an error of its own, with a traceback or with a crash. A signal
that comes during an import is looked at again a moment later, until the import is over.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Generator
from types import FrameType

_AGAIN = 0.01
_IMPORTING = "<frozen importlib._bootstrap>"


class Terminated(BaseException):
    """SIGTERM came: unwinds like Ctrl-C."""


@contextlib.contextmanager
def stoppable() -> Generator[None]:
    """Within, SIGTERM raises Terminated and Ctrl-C KeyboardInterrupt, once no import is under way."""
    asked: list[BaseException] = []

    def stop(number: int, frame: FrameType | None) -> None:
        if number != signal.SIGALRM:
            asked[:] = [Terminated() if number == signal.SIGTERM else KeyboardInterrupt()]
        if asked and _in_import(frame):
            signal.setitimer(signal.ITIMER_REAL, _AGAIN)
        elif asked:
            raise asked.pop()

    taken = [signal.SIGTERM, signal.SIGALRM]
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # a background job of a shell ignores it
        taken.append(signal.SIGINT)
    try:
        before = {number: signal.signal(number, stop) for number in taken}
    except ValueError:  # not the main thread: whoever embeds flowc minds its signals
        yield
        return
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        raise asked.pop()


def _in_import(frame: FrameType | None) -> bool:
    while frame is not None and frame.f_code.co_filename != _IMPORTING:
        frame = frame.f_back
    return frame is not None
