"""How many threads a command line may ask for, and what starts threads that nobody asked for."""

from __future__ import annotations

import os
import sys

import click

THREADS = click.IntRange(1, 1024)
"""More than a machine has cores for: onnxruntime starts as many as it is told, and cannot be stopped while it does."""

_BLAS_THREADS = "OPENBLAS_NUM_THREADS"


def numpy_without_threads() -> None:
    """Import numpy for a command that multiplies no matrices.

    OpenBLAS starts a thread for every core while it is loaded, which takes as much processor time as the rest of numpy.
    A number that stands in the environment is respected, and the environment is left as it was.
    """
    if "numpy" in sys.modules or _BLAS_THREADS in os.environ:
        return
    os.environ[_BLAS_THREADS] = "1"
    try:
        import numpy  # noqa: F401 (that it is loaded is all that is wanted)
    finally:
        del os.environ[_BLAS_THREADS]
