"""The JSON Schema of specs (draft-07), from the declarations of stage kinds and of the top-level keys."""

from __future__ import annotations

import json
import types
from typing import Any, Literal, Union, get_args, get_origin

from flowc.frontend.stage import Attribute, Stage, Stages
from flowc.ir.types import DTYPES
from flowc.reference.describe import describe_field, when_left_out
from flowc.spec.spec import PHASES, TOP_LEVEL
from flowc.stages import load_all

_SYMBOL = {"title": "$symbol", "type": "string", "pattern": r"^\$[A-Za-z_]\w*(\[\w+\])?$"}
_TYPES: dict[Any, dict[str, Any]] = {
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    str: {"type": "string"},
    type(None): {"type": "null"},
    Stages: {"type": "array", "items": {"$ref": "#/definitions/stage"}},
}


def schema() -> dict[str, Any]:
    """The JSON Schema (draft-07) of specs.

    It cannot check what crosses from one value to another: names of symbols and ropes, shapes, the order of stages,
    and symbols that stand in for required fields. `flowc check` does.
    """
    registry = dict(sorted(load_all().items()))
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "flowc spec",
        "description": "What a transformer computes: a list of stages. `flowc check` checks what no schema can.",
        "type": "object",
        "properties": {key: {"description": doc, **_TOP_LEVEL[key]} for key, doc in TOP_LEVEL.items()},
        "required": ["flowc", "flow"],
        "additionalProperties": False,
        "definitions": {
            "flow": {"type": "array", "items": {"$ref": "#/definitions/stage"}, "minItems": 1},
            "stage": {
                "description": "`kind`, `kind: value` (for its main field) or `kind: {field: value}`.",
                "anyOf": [
                    {"title": "a kind alone", "enum": [name for name, cls in registry.items() if _bare(cls)]},
                    {
                        "title": "kind: fields",
                        "type": "object",
                        "properties": {name: {"$ref": f"#/definitions/stage_{name}"} for name in registry},
                        "minProperties": 1,
                        "maxProperties": 1,
                        "additionalProperties": False,
                    },
                ],
            },
            **{f"stage_{name}": _stage_schema(cls) for name, cls in registry.items()},
        },
    }


_SCALAR = {"type": ["string", "number", "boolean", "null"]}
_TEXT = {"type": "string", "minLength": 1}
_TOP_LEVEL: dict[str, dict[str, Any]] = {
    "$schema": _TEXT,
    "flowc": {"const": 1},
    "name": _TEXT,
    "description": _TEXT,
    "kind": {"enum": ["decoder", "encoder"]},
    "model": {
        "type": "object",
        "propertyNames": {"pattern": r"^[A-Za-z_]\w*$"},
        "additionalProperties": {"anyOf": [_SCALAR, {"type": "array", "items": _SCALAR}]},
    },
    "weights": {
        "type": "object",
        "properties": {
            "file": {
                "description": "A .safetensors file, its .index.json, a folder, .gguf or .npz; relative to the spec.",
                **_TEXT,
            },
            "random": {"description": "Seed of random weights.", "type": "integer", "minimum": 0},
            "allow_unused": {
                "description": "Names of spare tensors; * stands for any text.",
                "type": "array",
                "items": {"type": "string"},
            },
        },
        "additionalProperties": False,
        "not": {"required": ["file", "random"]},
    },
    "inputs": {
        "type": "object",
        "additionalProperties": {"type": "string", "pattern": rf"^\s*({'|'.join(DTYPES)})\s*\[[^\]]*\]\s*$"},
    },
    "flow": {
        "anyOf": [
            {"title": "one flow for every phase", "$ref": "#/definitions/flow"},
            {
                "title": "a flow for each phase",
                "type": "object",
                "properties": {phase: {"$ref": "#/definitions/flow"} for phase in PHASES},
                "minProperties": 1,
                "additionalProperties": False,
            },
        ]
    },
    "output": _TEXT,
    "rename": {"type": "object", "additionalProperties": _TEXT},
    "expect": {
        "type": "object",
        "additionalProperties": {"anyOf": [{"const": "all"}, {"type": "integer", "minimum": 0}]},
    },
}


def _bare(cls: type[Stage]) -> bool:
    """Whether a stage may be written as its kind alone."""
    return not any(a.required and not a.symbol for a in cls.attributes())


def _stage_schema(cls: type[Stage]) -> dict[str, Any]:
    attributes = cls.attributes()
    spellings: list[dict[str, Any]] = [
        {
            "title": f"{cls.kind}: {{fields}}",
            "type": "object",
            "properties": {a.name: {"description": _field_doc(a), **_value(a, a.type)} for a in attributes},
            "required": [a.name for a in attributes if a.required and not a.symbol],
            "additionalProperties": False,
        }
    ]
    main = next((a for a in attributes if a.main), None)
    if main is not None and not any(a.required and not a.symbol and a is not main for a in attributes):
        title = f"{cls.kind}: {main.name}"
        spellings.append({"title": title, "description": _field_doc(main), **_value(main, main.type)})
    if _bare(cls):
        spellings.append({"title": f"{cls.kind} alone", "type": "null"})
    doc = f"{cls.summary()}\n\nExample: {cls.example}"
    return {"description": doc, "anyOf": spellings}


def _field_doc(attribute: Attribute) -> str:
    return f"{attribute.doc} [{when_left_out(describe_field(attribute))}]"


def _value(attribute: Attribute, kind: Any) -> dict[str, Any]:
    """Schema of a value of a type, or of a symbol that stands for one."""
    choices = _choices(attribute, kind)
    if kind is not Stages and not any(c == {"type": "string"} for c in choices):
        choices.append(_SYMBOL)
    return choices[0] if len(choices) == 1 else {"anyOf": choices}


def _choices(attribute: Attribute, kind: Any) -> list[dict[str, Any]]:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return [choice for a in arguments for choice in _choices(attribute, a)]
    if origin is Literal:
        return [{"enum": list(arguments)}]
    if origin is tuple:
        return [{"type": "array", "items": _value(attribute, arguments[0])}]
    if origin is dict:
        return [{"type": "object", "additionalProperties": _value(attribute, arguments[1])}]
    found = dict(_TYPES[kind])
    if kind in (int, float):
        facts = attribute.field.metadata
        for key, fact in (("minimum", "ge"), ("exclusiveMinimum", "gt")):
            if facts[fact] is not None:
                found[key] = facts[fact]
    return [found]


def schema_text() -> str:
    """The schema as the file holds it."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"
