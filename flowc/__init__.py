"""flowc: an ahead-of-time compiler from declarative model specs to ONNX."""

from __future__ import annotations

__version__ = "0.1.0"
