"""A process of its own for what may crash, run on for ever or fill the memory: other people's code on strangers' data.

    worker = Worker("flowc.ir.onnx_text.probe", memory=4 << 30)
    worker.ask({"text": ...}, seconds=60)            what the module's handler makes of it

Requests and answers are one line of JSON each. The module calls `serve(handler)` when it is run. A worker that took
too long, too much memory or said too much is ended, and `ask` raises `Stopped`; the next request starts another.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any, Literal

Reason = Literal["time", "memory", "output", "crash"]

LONGEST = 256 << 20
"""Bytes of an answer."""

_MEMORY = "FLOWC_WORKER_MEMORY"


class Stopped(Exception):
    """A worker gave no answer, and why."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


class Worker:
    """Runs a module in a process that is started when it is needed and bounded by `memory` bytes of address space."""

    def __init__(self, module: str, *, memory: int, longest: int = LONGEST) -> None:
        self._module, self._memory, self._longest = module, memory, longest
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process now, so that it is ready when the first request comes."""
        with self._lock:
            self._started()

    def ask(self, request: object, *, seconds: float) -> Any:
        """The answer to a request. Raises Stopped."""
        line = json.dumps(request).encode() + b"\n"
        with self._lock:
            try:
                found = json.loads(self._ask(line, seconds))
                if "stopped" in found:
                    raise Stopped(found["stopped"])
            except BaseException:  # also Ctrl-C: an answer that comes later must not be taken for the next one's
                self._end()
                raise
        return found["answer"]

    def _ask(self, line: bytes, seconds: float) -> bytes:
        process = self._started()
        assert process.stdin is not None and process.stdout is not None
        late = threading.Event()

        def end() -> None:
            late.set()
            process.kill()

        timer = threading.Timer(seconds, end)
        timer.daemon = True
        timer.start()
        try:
            process.stdin.write(line)
            process.stdin.flush()
            answer = process.stdout.readline(self._longest + 1)
        except OSError:  # it ended while we wrote
            answer = b""
        finally:
            timer.cancel()
        if len(answer) > self._longest:
            raise Stopped("output")
        if not answer.endswith(b"\n"):
            raise Stopped("time" if late.is_set() else "crash")
        return answer

    def _started(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            # Modules come from where ours do, never from the folder we happen to be in (-P): it may be a stranger's.
            found = os.pathsep.join(p for p in sys.path if p)
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", self._module], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": found, _MEMORY: str(self._memory)},
            )  # fmt: skip
            atexit.register(self.stop)
        return self._process

    def stop(self) -> None:
        """End the process; the next request starts another."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        atexit.unregister(self.stop)
        process.kill()
        with contextlib.suppress(OSError, ValueError):
            process.communicate()


def serve(handler: Callable[[Any], object]) -> None:
    """Answer every request that comes in on stdin until it is closed. What the handler raises ends the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to the whole group; who asked closes stdin
    # Answers go where stdout went; what a library prints goes nowhere.
    with open(os.dup(1), "wb") as answers, open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        _bound_memory(int(os.environ.get(_MEMORY, "0")))
        for line in sys.stdin.buffer:
            try:
                answer: dict[str, object] = {"answer": handler(json.loads(line))}
            except MemoryError:
                answer = {"stopped": "memory"}
            answers.write(json.dumps(answer).encode() + b"\n")
            answers.flush()


def _bound_memory(limit: int) -> None:
    try:
        import resource
    except ImportError:  # not on Windows
        return
    most = resource.getrlimit(resource.RLIMIT_AS)[1]
    if limit and (most == resource.RLIM_INFINITY or limit < most):
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
