"""A flow spec, read and checked as far as that needs no stage to be expanded.

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
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, cast

from flowc.beside import inlined, read_beside
from flowc.errors import Span
from flowc.ir.types import TensorType
from flowc.source import ListNode, MapNode, plain

Phase = Literal["prefill", "decode", "unified", "encode"]
DECODER_PHASES: tuple[Phase, ...] = ("unified", "prefill", "decode")
PHASES: tuple[Phase, ...] = (*DECODER_PHASES, "encode")

PORT_NAME = re.compile(r"[A-Za-z_][\w.-]*")
"""Names that graph inputs and outputs can have."""

TOP_LEVEL: dict[str, str] = {
    "flowc": "Version of the spec language: 1.",
    "name": "Name of the model, for people and for the manifest.",
    "description": "One or two sentences for people.",
    "kind": "decoder or encoder; by default what the stages say (a stage with a cache makes a decoder).",
    "model": "Named numbers and words; `$name` in a stage stands for one, `$name[i]` for an entry of a list.",
    "weights": "Where the weights are: `file`, or `random` with a seed; `allow_unused` lists spare tensors (patterns).",
    "inputs": "Graph inputs as `name: dtype[dim, dim]`; the first one starts the flow.",
    "flow": "The stages in order; or, for phases spelt out by hand, a map of prefill, decode and unified to stages.",
    "output": "Name of the flow's final value; logits for decoders, last_hidden_state for encoders.",
    "rename": "Other names for graph inputs and outputs.",
    "expect": "Passes that must fire: `pass: all`, or a number of places. A miss is an error.",
}
"""Keys of a spec and what they mean."""

METADATA_SYMBOLS = frozenset({"context_length", "eos", "bos", "pad", "vocab", "layers", "architecture"})
"""Entries of `model:` that describe the model and need no stage that reads them."""


@dataclass(frozen=True, slots=True)
class Symbol:
    """An entry of `model:`."""

    value: object
    span: Span


@dataclass(frozen=True, slots=True)
class WeightsDecl:
    """The `weights:` block."""

    file: str | None
    random: int | None
    allow_unused: tuple[str, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class InputDecl:
    """A declared graph input."""

    name: str
    type: TensorType
    span: Span


@dataclass(frozen=True, slots=True)
class Spec:
    """A spec whose every key and reference outside the flow is known to be sound."""

    path: Path
    root: MapNode
    name: str
    kind: str | None
    model: Mapping[str, Symbol]
    weights: WeightsDecl | None
    inputs: tuple[InputDecl, ...]
    flows: Mapping[str, ListNode]
    """Stages per phase; the key `*` serves every phase."""
    output: str | None
    rename: Mapping[str, str]
    expect: Mapping[str, str | int]
    used_symbols: set[str] = field(default_factory=set[str])
    included: dict[str, str] = field(default_factory=dict[str, str])
    """Texts of the files beside the spec that stages have read, by the names that the spec gives them."""

    def flow(self, phase: Phase) -> ListNode | None:
        """The stages of a phase."""
        return self.flows.get(phase, self.flows.get("*"))

    def symbol(self, name: str) -> object:
        """Value of an entry of `model:`, or None; counts as a use of it."""
        self.used_symbols.add(name)
        found = self.model.get(name)
        return found.value if found else None

    def integer(self, name: str) -> int | None:
        """An entry of `model:` that is a whole number, or None."""
        value = self.symbol(name)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def weights_path(self) -> Path | None:
        """The weights file, relative to the spec's folder."""
        if self.weights is None or self.weights.file is None:
            return None
        file = Path(self.weights.file)
        with contextlib.suppress(RuntimeError):  # a '~' without a home is a name like any other
            file = file.expanduser()
        return (self.path.parent / file).absolute()

    def read_beside(self, name: str, limit: int) -> str:
        """The text of a file in the spec's folder or below, of at most `limit` bytes; raises ValueError."""
        self.included[name] = read_beside(self.path.parent, name, limit)
        return self.included[name]

    def resolved(self) -> dict[str, object]:
        """The spec as plain values: what the spec hash is taken of.

        It stands for itself: without the path of the weights, and with the texts of the files that its stages read.
        """
        value = cast("dict[str, object]", inlined(plain(self.root), self.included))
        weights = value.get("weights")
        if isinstance(weights, dict):
            value["weights"] = {k: v for k, v in cast("dict[str, object]", weights).items() if k != "file"}
        return value

    def sha256(self) -> str:
        """Hash of the resolved spec."""
        text = json.dumps(self.resolved(), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()
