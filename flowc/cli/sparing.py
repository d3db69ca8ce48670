"""What a library would load or start at once, and a command line may never need."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_BLAS_THREADS = "OPENBLAS_NUM_THREADS"
_LATER = frozenset({"sympy", "onnx_ir._symbolic_shapes"})
"""sympy, and the one module of onnx_ir that touches it while it is loaded."""


def numpy_without_threads() -> None:
    """Import numpy for a command that multiplies no matrices.

    OpenBLAS starts a thread for every core while it is loaded, which takes as much processor time as the rest of numpy.
    A number that stands in the environment is respected, and the environment is left as it was.
    """
    if "numpy" in sys.modules or _BLAS_THREADS in os.environ:
        return
    os.environ[_BLAS_THREADS] = "1"
    try:
        importlib.import_module("numpy")
    finally:
        del os.environ[_BLAS_THREADS]


def onnx_ir_without_sympy() -> None:
    """Import onnx_ir so that sympy, most of its import, is loaded when something of it is first used.

    It is for arithmetic with symbolic sizes, which flowc does in its own IR. Python's `LazyLoader` makes it a module
    like any other that fills itself on first use. Only a command does this, in a process that is flowc's own.
    """
    if "onnx_ir" in sys.modules or not _LATER.isdisjoint(sys.modules):
        return
    with _found_later():
        importlib.import_module("onnx_ir")


@contextmanager
def _found_later() -> Generator[None]:
    sys.meta_path.insert(0, _Later)
    try:
        yield
    finally:
        sys.meta_path.remove(_Later)


class _Later:
    """Finds what is to be loaded later; everything else is found as ever."""

    @classmethod
    def find_spec(
        cls, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(fullname, path, target) if fullname in _LATER else None
        if spec is not None and spec.loader is not None:
            spec.loader = importlib.util.LazyLoader(spec.loader)
        return spec
