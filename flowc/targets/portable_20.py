"""Any runtime of standard ONNX operators of opset 20: newer ones are made of those (`lowering/decompositions.py`)."""

from __future__ import annotations

from flowc.targets.standard import HALVES, STANDARD
from flowc.targets.target import Target

TARGET = Target(
    "portable-20", 20, 9, "1.17.0", False, "standard ONNX operators of opset 20, for older runtimes", STANDARD, HALVES
)
