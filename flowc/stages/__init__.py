"""The stage kinds, one module each (closely related ones share one). `load_all` imports them all."""

from __future__ import annotations

import importlib
import pkgutil

from flowc.frontend.stage import REGISTRY, Stage


def load_all() -> dict[str, type[Stage]]:
    """Import every stage module; returns the registry."""
    for module in sorted(m.name for m in pkgutil.iter_modules(__path__)):
        importlib.import_module(f"{__name__}.{module}")
    return REGISTRY
