"""The checkpoint that a spec names, or that the command line names in its place."""

from __future__ import annotations

import os
from pathlib import Path

from flowc.errors import WeightsError
from flowc.spec.spec import Spec
from flowc.weights import Checkpoint, open_checkpoint
from flowc.weights.random import RandomCheckpoint


def open_weights(spec: Spec, instead: Path | None, *, need: bool) -> Checkpoint | None:
    """Open the weights of a spec, reading headers only; None where there are none and none are needed.

    Raises WeightsError `no-weights`, or what `open_checkpoint` raises, at the place that names them.
    """
    if instead is not None:
        return open_checkpoint(instead)
    declared = spec.weights
    if declared is not None and declared.random is not None:
        return RandomCheckpoint(declared.random)
    path = spec.weights_path()
    if path is None or declared is None:
        if need:
            hint = "`weights: {file: ...}` in the spec, or --weights; `weights: {random: 0}` to try it out"
            raise WeightsError.of("no-weights", "the spec names no weights", spec.span, hint)
        return None
    if not need and not os.path.exists(path):  # unlike Path.exists, it never raises
        return None
    return open_checkpoint(path, span=declared.span)
