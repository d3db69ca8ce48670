"""A flow spec, read and checked as far as that needs no stage to be expanded; every entry keeps its place.

flowc: 1
name: tiny
model:   {hidden: 64, layers: 2, vocab: 97}
weights: {file: model.safetensors}
flow:
  - embed: {weight: model.embed_tokens.weight}
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from flowc.errors import Span
from flowc.spec.components import Component, InputDecl
from flowc.spec.includes import inlined
from flowc.spec.keys import PORT_NAME, Symbol, WeightsDecl
from flowc.text.nodes import MapNode, plain

__all__ = [
    "METADATA_SYMBOLS",
    "PORT_NAME",
    "Expectation",
    "InputDecl",
    "Rename",
    "Spec",
    "Symbol",
    "WeightsDecl",
    "sha256",
]

METADATA_SYMBOLS = frozenset(
    {"context_length", "eos", "bos", "pad", "decoder_start", "vocab", "layers", "architecture"}
)
"""Entries of `model:` that describe the model and need no stage that reads them."""


@dataclass(frozen=True, slots=True)
class Rename:
    """An entry of `rename:`: an input or output by the name that stages give it, and its public name."""

    name: str
    public: str
    name_span: Span
    span: Span


@dataclass(frozen=True, slots=True)
class Expectation:
    """An entry of `expect:`: how often a pass must fire, or `all`."""

    pass_name: str
    wanted: str | int
    name_span: Span
    span: Span


@dataclass(frozen=True, slots=True)
class Spec:
    """A spec whose every key and reference outside the flow is known to be sound."""

    path: Path
    root: MapNode
    """The text's own tree: what the hash is taken of. Everything that decides a build is in the other fields."""
    name: str
    model: Mapping[str, Symbol]
    weights: WeightsDecl | None
    components: tuple[Component, ...]
    """Those that the spec names, in their order, or the one of a plain spec."""
    rename: Mapping[str, Rename]
    expect: tuple[Expectation, ...]
    input_symbols: frozenset[str] = frozenset()
    """Entries of `model:` that the types of inputs refer to."""

    @property
    def span(self) -> Span:
        """The whole text."""
        return self.root.span

    @property
    def main(self) -> Component:
        """The component whose graphs have the plain names: the last one."""
        return self.components[-1]

    def symbol(self, name: str) -> object:
        """Value of an entry of `model:`, or None."""
        found = self.model.get(name)
        return found.value if found else None

    def integer(self, name: str) -> int | None:
        """An entry of `model:` that is a whole number, or None."""
        value = self.symbol(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def public(self, name: str) -> str:
        """What an input or output is called in the files."""
        return self.rename[name].public if name in self.rename else name

    @property
    def public_names(self) -> dict[str, str]:
        """Inputs and outputs that the spec renames, by the name that stages give them."""
        return {rename.name: rename.public for rename in self.rename.values()}

    def weights_path(self) -> Path | None:
        """The weights file, relative to the spec's folder."""
        if self.weights is None or self.weights.file is None:
            return None
        file = Path(self.weights.file)
        with contextlib.suppress(RuntimeError):  # a '~' without a home is a name like any other
            file = file.expanduser()
        return (self.path.parent / file).absolute()

    def resolved(self, included: Mapping[str, str]) -> dict[str, object]:
        """The spec as plain values: what the spec hash is taken of.

        It stands for itself: without the path of the weights, and with the texts of the files beside it that its stages
        read (`included`, by the names that the spec gives them).
        """
        value = cast("dict[str, object]", inlined(plain(self.root), included))
        value.pop("$schema", None)
        weights = value.get("weights")
        if isinstance(weights, dict):
            value["weights"] = {k: v for k, v in cast("dict[str, object]", weights).items() if k != "file"}
        return value


def sha256(resolved: Mapping[str, object]) -> str:
    """Hash of a resolved spec."""
    text = json.dumps(resolved, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()
