"""Numbers as recordings hold them: short decimals that a person can read, and that come back as they were.

A logit is the shortest decimal that gives its float32 again, a statistic has nine digits. Recordings of earlier
versions held hexadecimal texts (`0x1.8p+1`), which are still read.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

DIGITS = 9


def logit(value: float) -> float:
    """A float32 as the shortest decimal that stands for it."""
    return float(str(np.float32(value)))


def statistic(value: float) -> float:
    """A float64 to nine digits."""
    return float(f"{value:.{DIGITS}g}")


def known(value: object) -> float | None:
    """The number of an entry of a recording, decimal or hexadecimal; None for anything else, and for no number."""
    if isinstance(value, str):
        try:
            value = float.fromhex(value)
        except (ValueError, OverflowError):
            return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def array(values: Iterable[float]) -> Array:
    """The numbers as float64."""
    return np.array([*values], np.float64)
