"""The JSON Schema of golden cases (draft-07), beside the reader of `flowc/golden/case.py`."""

from __future__ import annotations

import json
from typing import Any

from flowc.golden.case import ABSOLUTE, KEYS, MOST_COLUMNS, MOST_ROWS, MOST_STEPS, NAME, TIE
from flowc.targets.registry import TARGETS


def case_schema() -> dict[str, Any]:
    """The schema. What a case names (a spec, a checkpoint) and whether a model takes prompts is not in it."""
    found = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "flowc golden case",
        "description": "A model and what it is asked; its recording lies beside it, with .json for .yaml.",
        "type": "object",
        "properties": {key: _PROPERTIES[key] for key in KEYS},
        "required": ["golden"],
        "allOf": [_one_of("spec", "checkpoint"), _one_of("prompts", "inputs")],
        "additionalProperties": False,
    }
    return found


def case_schema_text() -> str:
    """The schema as `flowc schema golden` prints it."""
    return json.dumps(case_schema(), indent=1, ensure_ascii=False) + "\n"


def _one_of(a: str, b: str) -> dict[str, Any]:
    return {"oneOf": [{"title": a, "required": [a]}, {"title": b, "required": [b]}]}


def _whole(doc: str, least: int, most: int) -> dict[str, Any]:
    return {"description": doc, "type": "integer", "minimum": least, "maximum": most}


def _map(doc: str, **properties: dict[str, Any]) -> dict[str, Any]:
    return {"description": doc, "type": "object", "properties": properties, "additionalProperties": False}


def _text(doc: str) -> dict[str, Any]:
    return {"description": doc, "type": "string", "minLength": 1}


_STEPS = _whole("Tokens that the model goes on. [8]", 1, MOST_STEPS)
_PROMPT = {
    "anyOf": [
        {
            "title": "token ids",
            **_map(
                "A prompt as token ids.",
                ids={"type": "array", "items": {"type": "integer", "minimum": 0}, "minItems": 1},
                steps=_STEPS,
            ),
            "required": ["ids"],
        },
        {
            "title": "text",
            **_map("A prompt for the model's tokenizer and chat template.", text=_text("The prompt."), steps=_STEPS),
            "required": ["text"],
        },
    ]
}
_PROPERTIES: dict[str, dict[str, Any]] = {
    "golden": {"description": "Version of the form of cases: 1.", "const": 1},
    "name": {"description": "Name in reports. [the file's]", "type": "string", "pattern": f"^{NAME.pattern}$"},
    "description": _text("A sentence for people."),
    "checkpoint": _text("A checkpoint that importers read, relative to the case: a folder or a GGUF file."),
    "spec": _text("A spec, relative to the case; with its own `weights:`, or --weights."),
    "weights_sha256": _text("sha256 of the weights file; other weights are refused. A recording always has it."),
    "target": {"description": "What the model is built for. [ort-cpu]", "enum": list(TARGETS)},
    "dtype": {"description": "Of the graphs. [float32]", "enum": ["float32"]},
    "prompts": {
        "description": "What a decoder is asked.",
        "type": "array",
        "items": _PROMPT,
        "minItems": 1,
    },
    "inputs": _map(
        "Seeded inputs of an encoder or an image model: a ragged batch.",
        seed=_whole("Seed. [1]", 0, 2**31),
        batch=_whole("Rows. [3]", 1, MOST_ROWS),
        columns=_whole("Tokens of the longest row. [9]", 1, MOST_COLUMNS),
    ),
    "tolerance": _map(
        "How far numbers may move.",
        absolute={"description": f"Of a number, absolute. [{ABSOLUTE:g}]", "type": "number", "minimum": 0},
        tie={"description": f"Distance of two logits that tie. [{TIE:g}]", "type": "number", "minimum": 0},
    ),
}
