"""flowc: an ahead-of-time compiler from declarative model specs to ONNX.

    import flowc

    spec = flowc.load("model.yaml")
    flowc.check(spec)
    flowc.build(spec, "out/model.onnx")
    flowc.run("out/model.onnx", ids=[1, 2, 3]).ids
    flowc.verify("out/model.onnx").passed

The functions are those of `flowc.api`, which is imported when the first of them is used: `import flowc` loads nothing.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowc.api import (
        Built,
        Checked,
        CheckFailed,
        Diagnostic,
        FlowError,
        MissingTool,
        Ran,
        Spec,
        SpecError,
        Verified,
        WeightsError,
        build,
        check,
        load,
        run,
        verify,
    )

__version__ = "0.1.0"

__all__ = [
    "Built",
    "CheckFailed",
    "Checked",
    "Diagnostic",
    "FlowError",
    "MissingTool",
    "Ran",
    "Spec",
    "SpecError",
    "Verified",
    "WeightsError",
    "__version__",
    "build",
    "check",
    "load",
    "run",
    "verify",
]

_ROOMS = ("build", "verify")
"""Functions of the API that share their names with a room of the compiler."""


class _Room(ModuleType):
    """A room that is called like a function: `flowc.build` is both, whichever was asked for first."""

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """The function of `flowc.api` of the same name."""
        return getattr(importlib.import_module("flowc.api"), self.__name__.rpartition(".")[2])(*arguments, **options)


class _Package(ModuleType):
    """This package: Python binds a room to its name here whenever somebody imports it."""

    def __setattr__(self, name: str, value: object) -> None:
        if name in _ROOMS and isinstance(value, ModuleType):
            value.__class__ = _Room
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        if name in _ROOMS:
            return importlib.import_module(f"{__name__}.{name}")
        if name in __all__:
            return getattr(importlib.import_module(f"{__name__}.api"), name)
        raise AttributeError(f"module 'flowc' has no attribute '{name}'")

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *__all__})


sys.modules[__name__].__class__ = _Package
