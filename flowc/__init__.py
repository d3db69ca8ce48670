"""Ahead-of-time compiler from declarative YAML transformer specs to checked ONNX graphs."""

from __future__ import annotations

__version__ = "0.1.0"
