"""A spec or a finished build, whichever was named, as compiled graphs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flowc.build import manifest as manifests
from flowc.build.compiled import Compiled, Request
from flowc.build.manifest import Manifest
from flowc.compile import compile_file
from flowc.errors import SpecError
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


def named(path: Path, weights: Path | None = None, request: Request | None = None) -> Named:
    """Read a spec (`.yaml`, `.json`), or a build by any of its files or its folder.

    `request` says how a spec is compiled; a build knows that itself. Raises FlowError with what is wrong.
    """
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
