"""The one door to onnxruntime.

At its import onnxruntime 1.32 writes a device id and a database of what it saw below the user's home, to send them to
its makers; `ORT_DISABLE_TELEMETRY=1` in the environment keeps it from both. A user who sets the variable decides.

Where a session cannot be made, its Python side prints a banner to stdout and tries again with other providers than were
asked for; here it does neither.
"""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

    from onnxruntime import InferenceSession


def onnxruntime() -> ModuleType:
    """The module, imported with its telemetry off. Raises what the import raises."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime as module

    return module


_OPTIONS = {"CUDAExecutionProvider": {"use_tf32": "0"}}
"""A float32 graph is computed in float32: TF32 has ten bits."""


def open_graph(
    graph: str | bytes, options: Any = None, providers: Sequence[str] = ("CPUExecutionProvider",)
) -> InferenceSession:
    """A session of a graph's file, or its bytes, on these providers and no others. Raises what onnxruntime raises."""
    asked = [(name, _OPTIONS[name]) if name in _OPTIONS else name for name in providers]
    with contextlib.redirect_stdout(io.StringIO()):
        session = onnxruntime().InferenceSession(graph, options, providers=asked, enable_fallback=0)
    if session.get_providers()[0] != providers[0]:  # onnxruntime says nothing of a provider that it leaves out
        raise RuntimeError(f"{providers[0]} cannot be loaded on this machine")
    return session
