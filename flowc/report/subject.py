"""A spec or a finished build, whichever was named, as compiled graphs."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from flowc.build import manifest as manifests
from flowc.build.compiled import Compiled, Request
from flowc.build.manifest import Manifest
from flowc.compile import compile_file
from flowc.errors import SpecError
from flowc.report.revision import compile_revision, is_revision
from flowc.spec.load import load

SPECS = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True)
class Named:
    """What a path names: graphs, and the manifest when it is a build."""

    path: Path
    compiled: Compiled
    manifest: Manifest | None

    @property
    def is_build(self) -> bool:
        """Whether files of a build stand behind it."""
        return self.manifest is not None

    @property
    def has_weights(self) -> bool:
        """Whether values of weights are at hand: the original ones, or as the build's data files hold them."""
        return self.compiled.checkpoint is not None or (self.manifest is not None and bool(self.manifest.data))

    @property
    def weights_file(self) -> Path | None:
        """The file or folder that a spec names for its weights, whether it is there or not; None for a build."""
        asked = self.compiled.request.weights or self.compiled.spec.weights_path()
        return None if self.is_build or asked is None else Path(os.path.abspath(asked))

    @property
    def lacks_weights(self) -> str:
        """Why no weights are at hand."""
        if self.is_build:
            return "its original weights are not at hand"
        file = self.weights_file
        return "it names no weights" if file is None else f"there is no file {file}"


def named(path: Path, weights: Path | None = None, request: Request | None = None) -> Named:
    """Read a spec (`.yaml`, `.json`; REVISION:PATH as git has it), or a build by any of its files or its folder.

    `request` says how a spec is compiled; a build knows that itself. Raises FlowError with what is wrong.
    """
    if is_revision(path):
        return Named(path, compile_revision(str(path), request or Request(weights)), None)
    if not path.exists():
        raise SpecError.of("missing-file", f"there is nothing at '{path}'")
    if is_spec(path):
        return Named(path, compile_file(path, request or Request(weights), need_weights=False), None)
    from flowc.verify.rebuild import recompile

    manifest = manifests.load(path)
    return Named(path, recompile(manifest, weights), manifest)


def files_behind(path: Path) -> list[Path]:
    """The files of a spec (its weights among them) or of a build. Raises FlowError as reading them does."""
    if not is_spec(path):
        return list(manifests.load(path).files)
    weights = load(path).weights_path()
    inside = weights.iterdir() if weights is not None and weights.is_dir() else ()
    return [path, *([weights] if weights is not None else []), *inside]


def is_spec(path: Path) -> bool:
    """Whether a path's name is that of a spec, not of a build."""
    return path.suffix in SPECS and not path.name.endswith(manifests.SUFFIX)
