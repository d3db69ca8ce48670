"""Kernel operators: what a runtime runs, one operator a kernel, each with its meaning in numpy."""

from __future__ import annotations

import importlib
import pkgutil

for _module in sorted(m.name for m in pkgutil.iter_modules(__path__)):
    importlib.import_module(f"{__name__}.{_module}")
