"""Where graphs run, and where what travels between their calls lies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flowc.errors import MissingTool
from flowc.outside.runtime import onnxruntime

if TYPE_CHECKING:
    from onnxruntime import OrtValue

CUDA_PROVIDER = "CUDAExecutionProvider"
_BFLOAT16 = 16
"""ONNX's number of the type that numpy lacks."""


@dataclass(frozen=True, slots=True)
class Device:
    """A device by onnxruntime's name, and the providers that a session on it has."""

    name: str
    providers: tuple[str, ...]

    def zeros(self, sizes: tuple[int, ...], dtype: np.dtype[Any], *, overwritten: bool) -> OrtValue:
        """An array of zeros on the device.

        `overwritten`: nothing of it is read before it is written, so that any numbers do where numpy has no zeros.
        """
        ort = onnxruntime()
        if dtype.name != "bfloat16":
            return ort.OrtValue.ortvalue_from_numpy(np.zeros(sizes, dtype), self.name, 0)
        if overwritten and self.name != "cpu":
            return ort.OrtValue.ortvalue_from_shape_and_type(list(sizes), _BFLOAT16, self.name, 0)
        # onnxruntime copies what lies on the host to where it is used.
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(np.zeros(sizes, np.uint16), _BFLOAT16)


CPU = Device("cpu", ("CPUExecutionProvider",))
CUDA = Device("cuda", (CUDA_PROVIDER,))


def device(asked: str) -> tuple[Device, str]:
    """The device `cpu`, `cuda` or `auto`, and, for one that had to give way, why.

    Raises MissingTool `missing-provider` where `cuda` is asked for and cannot be had.
    """
    if asked == "cpu":
        return CPU, ""
    why = why_no_cuda()
    if not why:
        return CUDA, ""
    if asked == "auto":
        return CPU, why
    hint = "install onnxruntime-gpu in place of onnxruntime; `flowc doctor` tells what this machine has"
    raise MissingTool.of("missing-provider", f"graphs cannot run on CUDA here: {why}", hint=hint)


def why_no_cuda() -> str:
    """Why onnxruntime cannot run graphs on CUDA here; empty where it can."""
    ort = onnxruntime()
    if CUDA_PROVIDER not in ort.get_available_providers():
        return f"this onnxruntime ({ort.__version__}) has no {CUDA_PROVIDER}"
    ort.preload_dlls()
    try:
        ort.OrtValue.ortvalue_from_numpy(np.zeros(1, np.float32), "cuda", 0)
    except Exception as error:  # what CUDA says of a machine has no kind of its own
        return f"no device answers: {' '.join(str(error).split())[:200]}"
    return ""
