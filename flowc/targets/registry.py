"""Every target by name: each file of this folder that declares one."""

from __future__ import annotations

import importlib
import pkgutil

import flowc.targets
from flowc.errors import SpecError, nearest
from flowc.targets.target import Target


def _declared() -> dict[str, Target]:
    names = [m.name for m in pkgutil.iter_modules(flowc.targets.__path__) if m.name != "registry"]
    modules = (importlib.import_module(f"flowc.targets.{name}") for name in names)
    found: list[Target] = [m.TARGET for m in modules if hasattr(m, "TARGET")]
    return {t.name: t for t in found}


TARGETS = _declared()


def target(name: str) -> Target:
    """The target of that name; SpecError when there is none."""
    if name not in TARGETS:
        raise SpecError.of(
            "unknown-target",
            f"there is no target '{name}'",
            hint=nearest(name, TARGETS) or f"targets: {', '.join(TARGETS)}",
        )
    return TARGETS[name]
