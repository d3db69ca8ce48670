"""What commands take: kinds of values that click does not have."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any, ClassVar

import click


class Number(click.FloatRange):
    """A range that also keeps out NaN and infinity, which compare as if inside."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """The number of a text."""
        number = super().convert(value, param, ctx)
        return number if math.isfinite(number) else self.fail(f"{value} is not a finite number", param, ctx)


class ByteSize(click.ParamType[int]):
    """A number of bytes with a unit: 500MB, 2GB, 1.5GiB."""

    name = "size"
    units: ClassVar = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes of a text."""
        match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([A-Za-z]+)", str(value).strip())
        unit = self.units.get(match[2].upper()) if match else None
        size = int(float(match[1]) * unit) if match and unit else 0
        if size < 1:
            self.fail(f"'{value}' is not a size such as 500MB, 2GB or 1GiB", param, ctx)
        return size


def spec_path(context: click.Context, _: click.Parameter, path: Path) -> Path:
    """The path of a spec; raises UsageError for what a build wrote, which would be read as a broken text."""
    if path.name.endswith((".onnx", ".onnx.data", ".flowc.json")):
        raise click.UsageError(f"'{path}' is a file of a build, and this command takes a spec", context)
    return path
