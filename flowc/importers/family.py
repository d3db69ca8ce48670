"""What an importer of a family gives, and the registry of importers by `model_type`."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from flowc.importers.config import Config

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of the checkpoint's tensors by name."""


@dataclass(frozen=True, slots=True)
class Family:
    """The parts of a spec that depend on the model, as plain values."""

    model: dict[str, Any]
    flow: list[Any]
    inputs: dict[str, str] = field(default_factory=lambda: {"input_ids": "int64[batch_size, sequence_length]"})
    allow_unused: list[str] = field(default_factory=list[str])
    output: str | None = None
    hidden_at: int | None = None
    """How many stages of an encoder's flow make its last hidden state; poolers that are asked for stand behind them."""


Importer = Callable[[Config, Shapes], Family]

_IMPORTERS: dict[str, Importer] = {}


def imports(*model_types: str) -> Callable[[Importer], Importer]:
    """Register the importer of some model types."""

    def register(function: Importer) -> Importer:
        for model_type in model_types:
            _IMPORTERS[model_type] = function
        return function

    return register


def families() -> Mapping[str, Importer]:
    """All importers by model type."""
    import flowc.importers

    for module in sorted(m.name for m in pkgutil.iter_modules(flowc.importers.__path__)):
        importlib.import_module(f"flowc.importers.{module}")
    return _IMPORTERS
