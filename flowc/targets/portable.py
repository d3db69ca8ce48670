"""Any runtime of standard ONNX operators."""

from __future__ import annotations

from flowc.targets.standard import HALVES, STANDARD
from flowc.targets.target import Target

TARGET = Target("portable", 24, 10, "1.32.0", False, "standard ONNX operators only", STANDARD, HALVES)
