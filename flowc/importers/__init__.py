"""Specs from checkpoints: a HuggingFace folder or a GGUF file becomes a spec that states every number.

An importer reads `config.json` (or GGUF metadata brought into the same terms) field by field. A field that it does not
know could change the numbers, so it is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np

from flowc.errors import SpecError, WeightsError, nearest
from flowc.importers.config import Config
from flowc.importers.decoders import end_tokens
from flowc.importers.defaults import CLASS_DEFAULTS
from flowc.importers.document import render
from flowc.importers.family import Family, families
from flowc.importers.names import as_stored, renamed
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
    notes: tuple[str, ...] = ()
    """What the importer saw and what no spec can say."""

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
        hint = ""
        if _HUB_NAME.fullmatch(str(path)):
            hint = f"flowc downloads nothing; if it is a model of the hub: hf download {path} --local-dir {path.name}"
        raise WeightsError.of("missing-file", f"there is nothing at '{path}' to import", hint=hint)
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
    family = with_poolers(imported.family, poolers, imported.model_type)
    return replace(imported, family=family, notes=_notes(config, path))


_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")


def _notes(config: Config, path: Path) -> tuple[str, ...]:
    own = config.data.get("auto_map")
    if not own:
        return ()
    return (
        f"auto_map of {config.name} names code of the checkpoint's own, which '{path.name}' may be meant to run by; "
        f"what is imported is transformers' own {config.data.get('model_type')}, as without trust_remote_code",
    )


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
    stored = {n: t.shape for n, t in checkpoint.tensors().items()}
    names = renamed(stored, tied=config.data.get("tie_word_embeddings"))
    shapes = {names.get(n, n): shape for n, shape in stored.items()}
    if _head_of_its_own(checkpoint, stored):
        config.data["tie_word_embeddings"] = False
    config.assume(CLASS_DEFAULTS.get(model_type, {}))
    try:
        family = importer(config, shapes)
    except (ArithmeticError, TypeError, ValueError, LookupError) as error:
        # Fields that are sound one by one may not fit each other: no heads to share the channels, a list too short.
        config.refuse(field, f"its fields do not fit together: {error}")
        config.finish()
        raise
    config.finish()
    _unite_ends(config, family)
    if names:
        family = as_stored(family, {now: was for was, now in names.items()}, shapes)
    return ImportedSpec(name, family, model_type, weights, config.architecture)


def _unite_ends(config: Config, family: Family) -> None:
    """The end tokens of a configuration and of the `text_config` inside it, together."""
    inner: Any = config.data.get("text_config")
    parts = [config.data, *([cast("dict[str, Any]", inner)] if isinstance(inner, dict) else [])]
    ends = list(dict.fromkeys(i for part in parts for i in end_tokens(part.get("eos_token_id"))))
    if len(parts) > 1 and ends:
        family.model["eos"] = ends[0] if len(ends) == 1 else ends


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
    if head is None or embedding is None:
        return False
    if shapes[head] != shapes[embedding]:
        message = (
            f"the head '{head}' is {list(shapes[head])}, and the embedding '{embedding}' {list(shapes[embedding])}"
        )
        hint = "a vocabulary that was resized on one side: HuggingFace does not load it either"
        raise WeightsError.of("misshapen-weight", message, hint=hint)
    for first in range(0, shapes[head][0], _ROWS):
        rows = slice(first, min(first + _ROWS, shapes[head][0]))
        if not np.array_equal(checkpoint.read(head, rows), checkpoint.read(embedding, rows)):
            return True
    return False
