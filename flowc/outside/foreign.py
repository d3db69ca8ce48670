"""Other people's code: what it raises, in terms of what a user can do about it.

Libraries in Rust panic with an exception that no `except Exception` sees; libraries in C++ throw kinds of their own; an
import that the memory does not suffice for is an ImportError.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Generator

from flowc.errors import FlowError, MissingTool

_NO_MEMORY = re.compile(
    r"bad[_ ]alloc|failed to allocate memory|cannot allocate memory|failed to map segment|out of memory"
    r"|unable to allocate|allocation failed|cannot create thread|mmap.*failed",
    re.IGNORECASE,
)
_NO_THREADS = re.compile(r"can't start new thread|resource temporarily unavailable", re.IGNORECASE)


@contextlib.contextmanager
def foreign(tell: Callable[[str], FlowError]) -> Generator[None]:
    """Within, whatever other people's code raises becomes what `tell` makes of its message, on one line.

    Flowc's own errors, a lack of memory (MissingTool `no-memory`) and what stops a program stay what they are.
    """
    try:
        yield
    except FlowError:
        raise
    except Exception as error:
        raise lack_of(error) or tell(one_line(error)) from None
    except BaseException as error:
        if type(error).__module__ != "pyo3_runtime":  # Ctrl-C and the like
            raise
        raise tell(one_line(error)) from None


LEAST_MEMORY = 384 << 20
"""Bytes of address space below which libraries end the process, or print what they like, instead of raising."""


def check_memory() -> None:
    """Raise MissingTool `no-memory` where the address space is limited (`ulimit -v`) to less than libraries survive."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit != resource.RLIM_INFINITY and limit < LEAST_MEMORY:
        message = f"this process may take {limit >> 20} MiB of memory (ulimit -v); flowc needs {LEAST_MEMORY >> 20}"
        raise MissingTool.of("no-memory", message)


def lack_of(error: Exception) -> MissingTool | None:
    """The machine's lack that an exception tells of, whatever its kind; None when it tells of none."""
    silent = isinstance(error, SystemError) and "without exception set" in str(error)
    if isinstance(error, MemoryError) or silent or _NO_MEMORY.search(str(error)):
        return MissingTool.of("no-memory", "there is not enough memory")
    if isinstance(error, RuntimeError | OSError) and _NO_THREADS.search(str(error)):
        return MissingTool.of("no-threads", "this machine starts no more threads")
    return None


def one_line(error: BaseException) -> str:
    """An exception's message without its line breaks; its kind where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
