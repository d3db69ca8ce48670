"""Declared fields as plain values and as words, for reference pages and the command line."""

from __future__ import annotations

import json
import types
from typing import Any, Literal, Union, get_args, get_origin

from flowc.records.declare import Own
from flowc.records.record import MAPS, Attribute, Record
from flowc.records.values import EXACT

_NAMES: dict[Any, str] = {
    int: "whole number",
    float: "number",
    bool: "true or false",
    str: "text",
    object: "any value",
    type(None): "null",
}


def type_name(type_: Any) -> str:
    """A field's type for people."""
    origin: Any = get_origin(type_)
    arguments: tuple[Any, ...] = get_args(type_)
    if origin in (Union, types.UnionType):
        return " or ".join(type_name(a) for a in arguments)
    if origin is Literal:
        return "one of " * (len(arguments) > 1) + ", ".join(map(str, arguments))
    if origin is tuple:
        return f"list of {_plural(type_name(arguments[0]))}"
    if origin in MAPS:
        key = "names" if arguments[0] is str else ", ".join(get_args(arguments[0]))
        return f"mapping of {key} to {type_name(arguments[1])}"
    if isinstance(type_, type) and issubclass(type_, Own):
        return type_.title
    if isinstance(type_, type) and issubclass(type_, Record):
        return "mapping"
    return _NAMES[type_]


def _plural(name: str) -> str:
    return f"{name}s"


def describe_field(attribute: Attribute) -> dict[str, Any]:
    """A field as plain values."""
    facts, default = attribute.facts, attribute.default
    nothing = attribute.required or (facts.least and not default)
    plain = None if nothing else _plain(default)
    type_ = type_name(attribute.spelling)
    if facts.form is not None and not facts.form.is_name:
        type_ = type_.replace("text", facts.form.called.removeprefix("a "))
    return {
        "name": attribute.name,
        "type": type_,
        "doc": attribute.doc,
        "required": attribute.required,
        "default": plain,
        "symbol": attribute.symbol,
        "main": attribute.main,
        "minimum": facts.ge,
        "exclusive_minimum": facts.gt,
        "maximum": facts.le,
        "unit": facts.unit,
    }


def _plain(default: Any) -> Any:
    """A default as a file would spell it."""
    if isinstance(default, Record):
        return {a.name: _plain(getattr(default, a.into)) for a in default.attributes()}
    return default.spelt() if isinstance(default, Own) else default


def bounds(field: dict[str, Any]) -> str:
    """Limits of a described field for people, such as `at least 0`; empty without any."""
    if field["minimum"] is not None and (field["maximum"] or EXACT) < EXACT:
        return f"{field['minimum']} to {field['maximum']}"
    if field["minimum"] is not None:
        return f"at least {field['minimum']}"
    return f"greater than {field['exclusive_minimum']}" if field["exclusive_minimum"] is not None else ""


def when_left_out(field: dict[str, Any]) -> str:
    """What a described field is when the file does not give it."""
    if field["symbol"]:
        return f"default: ${field['symbol']}" + ("" if field["required"] else ", else null")
    if field["default"] in (None, "") and "null" not in field["type"] and not field["required"]:
        return "–"
    return "required" if field["required"] else f"default: {json.dumps(field['default'], ensure_ascii=False)}"
