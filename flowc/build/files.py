"""The files of a build: what they are called, and what came of writing them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowc.build.manifest import SUFFIX
from flowc.errors import SpecError
from flowc.ir.phases import PHASES


@dataclass(frozen=True, slots=True)
class Outputs:
    """Names of the files beside `-o out/model.onnx`; all lie in one folder."""

    out: Path

    def __post_init__(self) -> None:
        if self.out.suffix != ".onnx":
            raise SpecError.of("bad-output", f"the output must be named *.onnx, not '{self.out.name}'")

    @property
    def folder(self) -> Path:
        """Where they lie."""
        return self.out.absolute().parent

    @property
    def stem(self) -> str:
        """The model's name in its folder."""
        return self.out.name.removesuffix(".onnx")

    @property
    def data(self) -> str:
        """The data file; where there are several, what their names begin with."""
        return f"{self.out.name}.data"

    def is_data(self, name: str) -> bool:
        """Whether a file name is one that a data file of this model may have."""
        return name == self.data or re.fullmatch(re.escape(self.data) + r"-\d{5}-of-\d{5}", name) is not None

    @property
    def manifest(self) -> str:
        """The manifest."""
        return self.stem + SUFFIX

    def graph(self, phase: str) -> str:
        """The graph of a phase."""
        return graph_file(self.out, phase)

    def graphs(self, phases: Iterable[str] = PHASES) -> set[str]:
        """The graphs of some phases, or all that a model of this name may have."""
        return {self.graph(phase) for phase in phases}


def graph_file(out: Path, phase: str) -> str:
    """Name of the file of a graph, called by its phase or by its component, beside `-o out/model.onnx`."""
    stem = out.name.removesuffix(".onnx")
    suffix = PHASES[phase].suffix if phase in PHASES else phase
    return f"{stem}.{suffix}.onnx" if suffix else f"{stem}.onnx"


@dataclass(slots=True)
class Built:
    """What a build wrote."""

    folder: Path
    manifest: dict[str, Any]
    files: list[Path] = field(default_factory=list[Path])
    sizes: dict[str, int] = field(default_factory=dict[str, int])
    """Bytes of each file by name, as this build wrote it: another build may have replaced it since."""
    removed: list[Path] = field(default_factory=list[Path])
    """Graphs and data files of earlier builds under this name that do not belong to this one."""
    checks: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    notes: list[str] = field(default_factory=list[str])
    """What the build wants to be known: a tokenizer left out, or one of another model replaced."""
