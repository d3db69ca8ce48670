"""The one door to onnxruntime.

At its import onnxruntime 1.32 writes a device id and a database of what it saw below the user's home, to send them to
its makers; `ORT_DISABLE_TELEMETRY=1` in the environment keeps it from both. A user who sets the variable decides.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import ModuleType


def onnxruntime() -> ModuleType:
    """The module, imported with its telemetry off. Raises what the import raises."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime as module

    return module
