"""Specs from checkpoints: a HuggingFace folder or a GGUF file becomes a spec that states every number.

An importer reads `config.json` (or GGUF metadata brought into the same terms) field by field. A field that it does not
know could change the numbers, so it is refused by name.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from flowc.errors import SpecError, WeightsError, nearest
from flowc.importers.config import Config
from flowc.importers.document import render
from flowc.importers.family import Family, families
from flowc.importers.pooling import named, of_folder, transformer_folder, with_poolers
from flowc.weights import Checkpoint, open_checkpoint


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


def import_checkpoint(path: Path, pool: Sequence[str] = ()) -> ImportedSpec:
    """Read a HuggingFace folder (`config.json` beside safetensors) or a `.gguf` file.

    A text encoder's spec gets the poolers named in `pool` (`mean`, `mean_l2`, `cls` ...), and the one that a
    sentence-transformers folder says.

    Raises SpecError for a model that flowc cannot reproduce, naming the field; WeightsError for broken weights.
    """
    if not path.exists():
        raise WeightsError.of("missing-file", f"there is nothing at '{path}' to import")
    poolers = [named(n) for n in pool]
    name = path.resolve().name
    if path.is_dir():
        poolers += of_folder(path)
        path = transformer_folder(path)
    checkpoint = open_checkpoint(path)
    if path.suffix == ".gguf" and not path.is_dir():
        from flowc.importers.gguf import config_of
        from flowc.weights.gguf.checkpoint import GgufCheckpoint  # gguf: who imports a folder does not wait for it

        assert isinstance(checkpoint, GgufCheckpoint)
        config = config_of(checkpoint)
        weights, name = path, path.stem
    else:
        folder = path if path.is_dir() else path.parent
        config = Config.read(folder / "config.json")
        weights, name = path, name if path.is_dir() else folder.resolve().name
    imported = _import(config, checkpoint, weights, name)
    return replace(imported, family=with_poolers(imported.family, poolers, imported.model_type))


def _import(config: Config, checkpoint: Checkpoint, weights: Path, name: str) -> ImportedSpec:
    field = "model_type" if config.has("model_type") or not config.has("_class_name") else "_class_name"
    model_type = config.text(field)
    known = families()
    importer = known.get(model_type)
    if importer is None:
        raise SpecError.of(
            "unknown-model-type", f"flowc has no importer for {field} '{model_type}'", config.span(field),
            nearest(model_type, known) or f"it imports {', '.join(sorted(known))}",
        )  # fmt: skip
    shapes = {n: t.shape for n, t in checkpoint.tensors().items()}
    if _head_of_its_own(checkpoint, shapes):
        config.data["tie_word_embeddings"] = False
    try:
        family = importer(config, shapes)
    except (ArithmeticError, TypeError, ValueError, LookupError) as error:
        # Fields that are sound one by one may not fit each other: no heads to share the channels, a list too short.
        config.refuse(field, f"its fields do not fit together: {error}")
        config.finish()
        raise
    config.finish()
    return ImportedSpec(name, family, model_type, weights, config.architecture)


_HEADS = (
    "lm_head.weight", "cls.predictions.decoder.weight", "lm_head.decoder.weight", "vocab_projector.weight",
    "decoder.weight",
)  # fmt: skip
_EMBEDDINGS = ("embed_tokens.weight", "word_embeddings.weight", "tok_embeddings.weight")
_ROWS = 4096


def _head_of_its_own(checkpoint: Checkpoint, shapes: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether a file has a head that differs from its embedding; HuggingFace does not tie the two then."""
    head = next((n for n in _HEADS if n in shapes), None)
    embedding = next((n for n in shapes if n.endswith(_EMBEDDINGS)), None)
    if head is None or embedding is None or shapes[head] != shapes[embedding]:
        return False
    for first in range(0, shapes[head][0], _ROWS):
        rows = slice(first, min(first + _ROWS, shapes[head][0]))
        if not np.array_equal(checkpoint.read(head, rows), checkpoint.read(embedding, rows)):
            return True
    return False
