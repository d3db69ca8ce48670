"""The JSON Schema of specs (draft-07), from the declarations of stage kinds and of the top-level keys."""

from __future__ import annotations

import json
from typing import Any

from flowc.frontend.stage import Stage
from flowc.records.describe import describe_field, when_left_out
from flowc.records.record import Attribute
from flowc.records.schema import record_schema, value_schema
from flowc.spec.keys import Keys
from flowc.stages import load_all

_SYMBOL = {"title": "$symbol", "type": "string", "pattern": r"^\$[A-Za-z_]\w*(\[\w+\])?$"}


def schema() -> dict[str, Any]:
    """The JSON Schema (draft-07) of specs.

    It cannot check what crosses from one value to another: names of symbols and ropes, shapes, the order of stages,
    and symbols that stand in for required fields. `flowc check` does.
    """
    registry = dict(sorted(load_all().items()))
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "flowc spec",
        "description": f"{Keys.summary()} `flowc check` checks what no schema can.",
        **record_schema(Keys),
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


def _bare(cls: type[Stage]) -> bool:
    """Whether a stage may be written as its kind alone."""
    return not any(a.required and not a.symbol for a in cls.attributes())


def _stage_schema(cls: type[Stage]) -> dict[str, Any]:
    attributes = cls.attributes()
    spellings: list[dict[str, Any]] = [
        {
            "title": f"{cls.kind}: {{fields}}",
            "type": "object",
            "properties": {a.name: {"description": _field_doc(a), **value_schema(a, _SYMBOL)} for a in attributes},
            "required": [a.name for a in attributes if a.required and not a.symbol],
            "additionalProperties": False,
        }
    ]
    main = next((a for a in attributes if a.main), None)
    if main is not None and not any(a.required and not a.symbol and a is not main for a in attributes):
        title = f"{cls.kind}: {main.name}"
        spellings.append({"title": title, "description": _field_doc(main), **value_schema(main, _SYMBOL)})
    if _bare(cls):
        spellings.append({"title": f"{cls.kind} alone", "type": "null"})
    doc = f"{cls.summary()}\n\nExample: {cls.example}"
    return {"description": doc, "anyOf": spellings}


def _field_doc(attribute: Attribute) -> str:
    return f"{attribute.doc} [{when_left_out(describe_field(attribute))}]"


def schema_text() -> str:
    """The schema as the file holds it."""
    return json.dumps(schema(), indent=1, ensure_ascii=False) + "\n"
