"""Specs from checkpoints: a HuggingFace folder or a GGUF file becomes a spec that states every number.

An importer reads `config.json` (or GGUF metadata brought into the same terms) field by field. A field that it does not
know could change the numbers, so it is refused by name.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from flowc.errors import SpecError, WeightsError, nearest
from flowc.importers.config import Config
from flowc.importers.document import render
from flowc.importers.family import Family, families
from flowc.weights import Checkpoint, open_checkpoint
from flowc.weights.gguf import GgufCheckpoint


@dataclass(frozen=True, slots=True)
class ImportedSpec:
    """A spec as text, and the weights file that it is for (relative in the text when `near` is its folder)."""

    name: str
    family: Family
    model_type: str
    weights: Path
    architecture: str

    def text(self, spec_folder: Path) -> str:
        """The spec's YAML for a file in `spec_folder`."""
        return render(self.name, self.model_type, self.family, self.weights, spec_folder)


def import_checkpoint(path: Path) -> ImportedSpec:
    """Read a HuggingFace folder (`config.json` beside safetensors) or a `.gguf` file.

    Raises SpecError for a model that flowc cannot reproduce, naming the field; WeightsError for broken weights.
    """
    if not path.exists():
        raise WeightsError.of("missing-file", f"there is nothing at '{path}' to import")
    checkpoint = open_checkpoint(path)
    if isinstance(checkpoint, GgufCheckpoint):
        from flowc.importers.gguf import config_of

        config = config_of(checkpoint)
        weights, name = path, path.stem
    else:
        folder = path if path.is_dir() else path.parent
        config = Config.read(folder / "config.json")
        weights, name = path, folder.resolve().name
    return _import(config, checkpoint, weights, name)


def _import(config: Config, checkpoint: Checkpoint, weights: Path, name: str) -> ImportedSpec:
    model_type = config.text("model_type")
    known = families()
    importer = known.get(model_type)
    if importer is None:
        raise SpecError.of(
            "unknown-model-type", f"flowc has no importer for model_type '{model_type}'", config.span("model_type"),
            nearest(model_type, known) or f"it imports {', '.join(sorted(known))}",
        )  # fmt: skip
    shapes = {n: t.shape for n, t in checkpoint.tensors().items()}
    family = importer(config, shapes)
    config.finish()
    return ImportedSpec(name, family, model_type, weights, config.architecture)
