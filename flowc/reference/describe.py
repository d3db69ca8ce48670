"""Stage kinds as plain values, from their declarations."""

from __future__ import annotations

from typing import Any

from flowc.frontend.stage import Stage
from flowc.records.describe import describe_field


def describe(cls: type[Stage]) -> dict[str, Any]:
    """A stage kind as plain values: what `flowc stages --json` lists."""
    return {
        "name": cls.kind,
        "doc": cls.summary(),
        "fields": [describe_field(a) for a in cls.attributes()],
        "reads": list(cls.reads),
        "writes": list(cls.writes),
        "weights": list(cls.weights),
        "example": cls.example,
        "reference": cls.reference,
        "cached": cls.cached,
    }
