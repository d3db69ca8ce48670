"""Tries what onnx does with a text in a process of its own, since a hostile one can end it or take all memory.

onnx's shape inference is C++ that trusts its input: `a, b = Split <num_outputs = 1> (x)` runs past the end of a vector,
and `LayerNormalization <axis = 2147483648>` fills memory, though its checker lets both pass. What a trial survives is
safe to do here, too.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from collections.abc import Sequence

from flowc.ir.types import TensorType

TIME_LIMIT = 60.0
"""Seconds that a trial may take, the start of the process included."""

MEMORY_LIMIT = 4 << 30
"""Bytes of address space that the process may take, where the system can bound it."""


def survives(text: str, types: Sequence[TensorType]) -> bool:
    """Whether onnx gets through the checks of a text with inputs of these types, whatever they find."""
    request = json.dumps({"text": text, "types": [[t.dtype, list(t.shape)] for t in types]})
    with _lock:
        return _ask(request)


_lock = threading.Lock()
_process: subprocess.Popen[str] | None = None


def _ask(request: str) -> bool:
    global _process
    if _process is None:
        _process = _start()
    process = _process
    assert process.stdin is not None and process.stdout is not None
    timer = threading.Timer(TIME_LIMIT, process.kill)
    timer.start()
    try:
        process.stdin.write(request + "\n")
        process.stdin.flush()
        alive = process.stdout.readline() == "survived\n"
    except OSError:  # it ended while we wrote
        alive = False
    finally:
        timer.cancel()
    if not alive:
        _stop()
    return alive


def _start() -> subprocess.Popen[str]:
    # Modules come from where ours do, and never from the folder we happen to be in (-P): it may be a stranger's.
    found = os.pathsep.join(p for p in sys.path if p)
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "flowc.ir.onnx_text.probe"], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True, encoding="utf-8", env={**os.environ, "PYTHONPATH": found},
    )  # fmt: skip


def _stop() -> None:
    """End the process; the next trial starts another."""
    global _process
    process, _process = _process, None
    if process is None:
        return
    process.kill()
    process.communicate()


atexit.register(_stop)


def _serve() -> None:
    """Try every request that comes in; an answer says that we are still there."""
    from flowc.ir.onnx_text.infer import infer

    _bound_memory()
    for line in sys.stdin:
        request = json.loads(line)
        types = tuple(TensorType(dtype, tuple(shape)) for dtype, shape in request["types"])
        try:
            infer(request["text"], types)
        except MemoryError:
            return
        except Exception:
            pass  # what is wrong is found and told where it happens again
        print("survived", flush=True)


def _bound_memory() -> None:
    try:
        import resource
    except ImportError:  # not on Windows
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT, MEMORY_LIMIT))


if __name__ == "__main__":
    _serve()
