"""Tries what onnx does with a text in a process of its own, since a hostile one can end it or take all memory.

onnx's shape inference is C++ that trusts its input: `a, b = Split <num_outputs = 1> (x)` runs past the end of a vector,
and `LayerNormalization <axis = 2147483648>` fills memory, though its checker lets both pass. What a trial survives is
safe to do here, too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flowc.ir.types import TensorType
from flowc.outside.worker import Stopped, Worker, serve

TIME_LIMIT = 60.0
"""Seconds that a trial may take, the start of the process included."""

MEMORY_LIMIT = 4 << 30
"""Bytes of address space that the process may take, where the system can bound it."""

_worker = Worker("flowc.ir.onnx_text.probe", memory=MEMORY_LIMIT)


def survives(text: str, types: Sequence[TensorType]) -> bool:
    """Whether onnx gets through the checks of a text with inputs of these types, whatever they find."""
    request = {"text": text, "types": [[t.dtype, list(t.shape)] for t in types]}
    try:
        _worker.ask(request, seconds=TIME_LIMIT)
    except Stopped:
        return False
    return True


def _try(request: Mapping[str, Any]) -> None:
    from flowc.ir.onnx_text.infer import infer

    types = tuple(TensorType(dtype, tuple(shape)) for dtype, shape in request["types"])
    try:
        infer(request["text"], types)
    except MemoryError:
        raise
    except Exception:
        pass  # what is wrong is found and told where it happens again


if __name__ == "__main__":
    serve(_try)
