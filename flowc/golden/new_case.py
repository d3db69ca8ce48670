"""The text of a first case for a model."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from flowc.build.compiled import Compiled
from flowc.errors import SpecError
from flowc.golden.case import ABSOLUTE, TIE
from flowc.ir.phases import without_cache
from flowc.spec.components import refuse_components

FIRST_IDS = (1, 2, 3, 5, 8, 13, 21, 34)
"""A prompt's ids where there is no text, as far as the vocabulary has them."""

_PLAIN = re.compile(r"(\.{1,2}/)*[A-Za-z][\w/-]*(\.[A-Za-z]\w*)*", re.ASCII)
"""What YAML reads as a text, these apart."""
_WORDS = ("null", "true", "false")


def new_case(compiled: Compiled, key: str, model: Path, case: Path, texts: Sequence[str], steps: int) -> str:
    """A case for a compiled spec.

    Args:
        compiled: the model.
        key: what names it in the case, `spec` or `checkpoint`.
        model: where that lies.
        case: where the case will lie.
        texts: prompts of a decoder.
        steps: how many tokens a decoder goes on.

    Raises:
        SpecError: texts for a model that takes none.
    """
    refuse_components(compiled.spec.name, bool(compiled.spec.main.name), "yet record goldens of")
    beside = os.path.relpath(model, case.parent or ".")
    lines = ["golden: 1", f"name: {_quoted(case.stem)}", f"{key}: {_quoted(Path(beside).as_posix())}"]
    if without_cache(compiled.graphs):
        if texts:
            raise SpecError.of("usage", "an encoder is given seeded inputs, and no --text")
        lines.append("inputs: {seed: 1, batch: 3, columns: 9}")
    else:
        lines += [
            "prompts:",
            *(f"  - {{text: {json.dumps(text, ensure_ascii=False)}, steps: {steps}}}" for text in texts),
        ]
        if not texts:
            vocab = compiled.spec.integer("vocab")
            ids = [i for i in FIRST_IDS if vocab is None or i < vocab] or [0]
            lines.append(f"  - {{ids: {ids}, steps: {steps}}}")
    lines.append(f"tolerance: {{absolute: {ABSOLUTE:g}, tie: {TIE:g}}}")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A plain text as it is, any other in quotes."""
    return text if _PLAIN.fullmatch(text) and text.lower() not in _WORDS else json.dumps(text, ensure_ascii=False)
