"""Stage kinds as plain values and words, from their declarations."""

from __future__ import annotations

import json
import types
from typing import Any, Literal, Union, get_args, get_origin

from flowc.frontend.stage import Attribute, Stage, Stages

_NAMES: dict[Any, str] = {
    int: "whole number",
    float: "number",
    bool: "true or false",
    str: "text",
    type(None): "null",
    Stages: "list of stages",
}


def type_name(type_: Any) -> str:
    """A field's type for people."""
    origin, arguments = get_origin(type_), get_args(type_)
    if origin in (Union, types.UnionType):
        return " or ".join(type_name(a) for a in arguments)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin is tuple:
        return f"list of {type_name(arguments[0])}s"
    if origin is dict:
        return f"mapping of names to {type_name(arguments[1])}"
    return _NAMES[type_]


def describe(cls: type[Stage]) -> dict[str, Any]:
    """A stage kind as plain values: what `flowc stages --json` lists."""
    return {
        "name": cls.kind,
        "doc": cls.summary(),
        "fields": [describe_field(a) for a in cls.attributes()],
        "reads": list(cls.reads),
        "writes": list(cls.writes),
        "weights": list(cls.weights),
        "example": cls.example,
        "reference": cls.reference,
        "cached": cls.cached,
    }


def describe_field(attribute: Attribute) -> dict[str, Any]:
    """A field of a stage kind as plain values."""
    facts = attribute.field.metadata
    default = attribute.default
    plain = None if attribute.required else list(default.items) if isinstance(default, Stages) else default
    return {
        "name": attribute.name,
        "type": type_name(attribute.type),
        "doc": attribute.doc,
        "required": attribute.required,
        "default": plain,
        "symbol": attribute.symbol,
        "main": attribute.main,
        "minimum": facts["ge"],
        "exclusive_minimum": facts["gt"],
        "unit": facts["unit"],
    }


def bounds(field: dict[str, Any]) -> str:
    """Limits of a described field for people, such as `at least 0`; empty without any."""
    if field["minimum"] is not None:
        return f"at least {field['minimum']}"
    return f"greater than {field['exclusive_minimum']}" if field["exclusive_minimum"] is not None else ""


def when_left_out(field: dict[str, Any]) -> str:
    """What a described field is when the spec does not give it."""
    if field["symbol"]:
        return f"default: ${field['symbol']}" + ("" if field["required"] else ", else null")
    return "required" if field["required"] else f"default: {json.dumps(field['default'], ensure_ascii=False)}"
