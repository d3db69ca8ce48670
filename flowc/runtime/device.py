"""Where graphs run, and where what travels between their calls lies."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from flowc.errors import MissingTool
from flowc.outside.runtime import onnxruntime, open_graph

if TYPE_CHECKING:
    from onnxruntime import InferenceSession, OrtValue

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

    def lengthened(self, held: OrtValue, used: int, more: OrtValue) -> OrtValue:
        """The first `used` columns (axis 2) of an array and the columns of another behind them, all on the device."""
        session = _joining(held.data_type(), self.providers)
        binding: Any = session.io_binding()
        binding.bind_ortvalue_input("held", held)
        binding.bind_ortvalue_input("more", more)
        binding.bind_cpu_input("used", np.array([used], np.int64))
        binding.bind_output("joined", self.name)
        session.run_with_iobinding(binding)
        return binding.get_outputs()[0]


@functools.cache
def _joining(type_: str, providers: tuple[str, ...]) -> InferenceSession:
    """A graph that joins columns: numpy has no bfloat16, and what lies on a device need not leave it."""
    from onnx import parser

    element = {"tensor(float)": "float", "tensor(float16)": "float16", "tensor(bfloat16)": "bfloat16"}[type_]
    text = _JOIN.replace("TYPE", element)
    return open_graph(parser.parse_model(text).SerializeToString(), None, providers)


_JOIN = """
<ir_version: 10, opset_import: ["": 21]>
join (TYPE[b, h, n, d] held, TYPE[b, h, m, d] more, int64[1] used) => (TYPE[b, h, total, d] joined)
{
  zero = Constant <value_ints = [0]> ()
  axis = Constant <value_ints = [2]> ()
  first = Slice (held, zero, used, axis)
  joined = Concat <axis = 2> (first, more)
}
"""

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
