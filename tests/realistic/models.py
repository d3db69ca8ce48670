"""The architectures that real-like weights are made for: every example, and every oracle checkpoint that imports."""

from __future__ import annotations

import functools
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from flowc.build.compiled import Compiled, Request
from flowc.compile import compile_file
from flowc.importers import import_checkpoint
from flowc.weights import open_checkpoint
from tests.oracle_io import COMMITTED, ROOT
from tests.realistic.weights import Shape, real_like, write_safetensors


@dataclass(frozen=True, slots=True)
class Model:
    """An architecture: the example or oracle case that it comes from."""

    source: Path

    @property
    def name(self) -> str:
        """Name of the example, or of the case."""
        return self.source.stem

    def compiled(self, folder: Path, seed: int, request: Request) -> Compiled:
        """Compiled with real-like weights, which are written into `folder`."""
        if self.source.suffix == ".yaml":
            weights = write_safetensors(folder / "model.safetensors", real_like(shapes_of_example(self.source), seed))
            return compile_file(self.source, replace(request, weights=weights))
        write_safetensors(folder / "model.safetensors", real_like(shapes_of_case(self.source), seed))
        for name in ("config.json", "modules.json"):
            if (self.source / name).is_file():
                shutil.copyfile(self.source / name, folder / name)
        spec = folder / "model.yaml"
        spec.write_text(import_checkpoint(folder, []).text(folder), encoding="utf-8")
        return compile_file(spec, request)


@functools.cache
def shapes_of_example(path: Path) -> Mapping[str, Shape]:
    """The tensors that a spec with random weights takes."""
    return {name: use.shape for name, use in compile_file(path, Request()).usage.tensors.items()}


@functools.cache
def shapes_of_case(folder: Path) -> Mapping[str, Shape]:
    """The tensors of an oracle's checkpoint."""
    return {name: tensor.shape for name, tensor in open_checkpoint(folder).tensors().items()}


@functools.cache
def models() -> tuple[Model, ...]:
    """Every architecture."""
    examples = [Model(path) for path in sorted((ROOT / "examples").glob("*.yaml"))]
    cases = [Model(path.parent) for path in sorted(COMMITTED.glob("*/config.json"))]
    return (*examples, *(case for case in cases if (case.source / "model.safetensors").is_file()))
