"""JSON Schema (draft-07) of records and of their fields, from the declarations."""

from __future__ import annotations

import types
from typing import Any, Literal, Union, cast, get_args, get_origin

from flowc.records.declare import Either, Own
from flowc.records.describe import type_name
from flowc.records.record import MAPS, Attribute, Record

Schema = dict[str, Any]

_TYPES: dict[Any, Schema] = {
    int: {"type": "integer"},
    float: {"type": "number"},
    bool: {"type": "boolean"},
    type(None): {"type": "null"},
    object: {},
}


def record_schema(cls: type[Record], *, lenient: bool = False) -> Schema:
    """An object with the record's keys; unknown ones, and null for nothing, where the file's reader is `lenient`."""
    found: Schema = {
        "type": "object",
        "properties": {a.name: {"description": a.doc, **value_schema(a, lenient=lenient)} for a in cls.attributes()},
        "required": [a.name for a in cls.attributes() if a.required],
        "additionalProperties": lenient,
    }
    if not found["required"]:
        del found["required"]
    if cls.either:
        rules = [_either(e) for e in cls.either]
        found |= rules[0] if len(rules) == 1 else {"allOf": rules}
    return found


def _either(rule: Either) -> Schema:
    if rule.needed:
        return {"oneOf": [{"title": key, "required": [key]} for key in rule.keys]}
    return {"not": {"required": list(rule.keys)}}


def value_schema(attribute: Attribute, instead: Schema | None = None, *, lenient: bool = False) -> Schema:
    """A field's value; `instead` is what may stand wherever a value does. Of several choices each has a title."""
    values = _Values(attribute, instead, lenient)
    if instead is not None:
        return _any(values.of(attribute.spelling))
    kinds = _alternatives(attribute.spelling)
    if attribute.facts.alone:
        kinds += get_args(next(kind for kind in kinds if get_origin(kind) is tuple))[:1]
    if lenient and not attribute.required and type(None) not in kinds:
        kinds.append(type(None))
    named = [(type_name(kind), choice) for kind in kinds for choice in values.of(kind)]
    return named[0][1] if len(named) == 1 else {"anyOf": [{"title": title, **choice} for title, choice in named]}


def _alternatives(kind: Any) -> list[Any]:
    return [*get_args(kind)] if get_origin(kind) in (Union, types.UnionType) else [kind]


def _any(choices: list[Schema]) -> Schema:
    return choices[0] if len(choices) == 1 else {"anyOf": choices}


class _Values:
    """Schemas of a field's types."""

    def __init__(self, attribute: Attribute, instead: Schema | None, lenient: bool) -> None:
        self._facts = attribute.facts
        self._instead = instead
        self._lenient = lenient

    def of(self, kind: Any) -> list[Schema]:
        """The schemas of which a value of a type fits one."""
        choices = self._choices(kind)
        if self._instead is not None and not _is_own(kind) and not any(c == {"type": "string"} for c in choices):
            choices.append(self._instead)
        return choices

    def _choices(self, kind: Any) -> list[Schema]:
        origin: Any = get_origin(kind)
        arguments: tuple[Any, ...] = get_args(kind)
        facts = self._facts
        if origin in (Union, types.UnionType):
            return [choice for a in arguments for choice in self._choices(a)]
        if origin is Literal:
            choices = list(arguments)
            return [{"enum": choices} if len(choices) > 1 else {"const": choices[0]}]
        if origin is tuple:
            least = {"minItems": facts.least} if facts.least else {}
            return [{"type": "array", "items": _any(self.of(arguments[0])), **least}]
        if origin in MAPS:
            return [self._map(*arguments)]
        if _is_own(kind):
            return [cast("type[Own]", kind).schema()]
        if isinstance(kind, type) and issubclass(kind, Record):
            return [record_schema(kind, lenient=self._lenient)]
        if kind is str:
            pattern = {"pattern": facts.form.pattern} if facts.form is not None and facts.form.pattern else {}
            return [{"type": "string", **({"minLength": facts.least} if facts.least else {}), **pattern}]
        found = dict(_TYPES[kind])
        if kind in (int, float):
            for key, bound in (("minimum", facts.ge), ("exclusiveMinimum", facts.gt), ("maximum", facts.le)):
                if bound is not None:
                    found[key] = bound
        return [found]

    def _map(self, key: Any, inner: Any) -> Schema:
        facts, values = self._facts, _any(self.of(inner))
        least = {"minProperties": facts.least} if facts.least else {}
        if get_origin(key) is Literal:
            properties = dict.fromkeys(get_args(key), values)
            return {"type": "object", "properties": properties, **least, "additionalProperties": False}
        names = {"propertyNames": {"pattern": facts.keys.pattern}} if facts.keys and facts.keys.pattern else {}
        return {"type": "object", **names, **least, "additionalProperties": values}


def _is_own(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Own)
