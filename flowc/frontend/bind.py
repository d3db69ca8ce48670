"""Turns a node of the flow into a stage: names resolved, fields checked, nothing guessed.

A stage is written `kind`, `kind: value` (for its main field) or `kind: {field: value}`. In values, `$name` is a model
symbol or the index of a `repeat`, `$name[i]` an entry of a list, and `{i}` inside a text the index as digits.
"""

from __future__ import annotations

import math
import re
import types
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Union, get_args, get_origin

from flowc.errors import Diagnostics, Span, nearest
from flowc.frontend.stage import REGISTRY, Attribute, Stage, Stages
from flowc.frontend.usage import Usage
from flowc.spec.spec import Spec
from flowc.text.source import ListNode, MapNode, Node, Scalar, plain

_SMALLEST, _LARGEST = 2.0**-126, (2 - 2.0**-23) * 2.0**127
"""The smallest and the largest normal number of float32, in which graphs compute."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A stage with the places of its fields in the spec."""

    stage: Stage
    span: Span
    spans: Mapping[str, Span]


class _Wrong(Exception):
    """A value that does not fit its field; the message completes `field 'x' of stage 'y' ...`."""


def bind(node: Node, spec: Spec, usage: Usage, indices: Mapping[str, int], problems: Diagnostics) -> Bound | None:
    """The stage that a node of the flow spells; None when something was wrong with it (and collected)."""
    head, body = _split(node)
    if head is None:
        several = isinstance(node, MapNode) and len(node.entries) > 1
        if _outdented(node, problems):
            return None
        hint = "one stage an item; fields stand deeper than their kind" if several else ""
        message = "a stage is written `kind`, `kind: value` or `kind: {field: value}`"
        problems.error("bad-stage", message, node.span, hint)
        return None
    kind = str(head.value)
    cls = REGISTRY.get(kind)
    if cls is None:
        hint = nearest(kind, REGISTRY) or "`flowc stages` lists all kinds"
        problems.error("unknown-stage", f"there is no stage kind '{kind}'", head.span, hint)
        return None
    attributes = {a.name: a for a in cls.attributes()}
    given = _fields(kind, body, attributes, head, problems)
    if given is None:
        return None
    scope = _Scope(spec, usage, indices)
    values: dict[str, Any] = {}
    sound = True
    for name, value in given.items():
        scope.hint = ""
        try:
            values[name] = convert(value, attributes[name], scope)
        except _Wrong as e:
            text = value.value if isinstance(value, Scalar) and attributes[name].type is not str else None
            hint = scope.hint or (_computes(text) if isinstance(text, str) else "")
            problems.error("bad-value", f"field '{name}' of stage '{kind}' {e}", value.span, hint)
            sound = False
    for name, attribute in attributes.items():
        if name in given:
            continue
        fallback = scope.symbol(attribute.symbol) if attribute.symbol else None
        if fallback is not None and attribute.symbol:
            place = spec.model[attribute.symbol].span
            try:
                values[name] = convert(_literal(fallback, place), attribute, scope)
            except _Wrong as e:
                problems.error(
                    "bad-value", f"model symbol '{attribute.symbol}' (field '{name}' of '{kind}') {e}", place
                )
                sound = False
        elif attribute.required:
            where = f"; or give the model symbol '{attribute.symbol}'" if attribute.symbol else ""
            problems.error("missing-field", f"stage '{kind}' needs the field '{name}'", head.span,
                           f"{name}: {attribute.doc.removesuffix('.')}{where}")  # fmt: skip
            sound = False
    if not sound:
        return None
    return Bound(cls(**values), head.span, {name: value.span for name, value in given.items()})


def _split(node: Node) -> tuple[Scalar | None, Node | None]:
    if isinstance(node, Scalar) and isinstance(node.value, str):
        return node, None
    if isinstance(node, MapNode) and len(node.entries) == 1:
        return node.entries[0].key, node.entries[0].value
    return None, None


def _outdented(node: Node, problems: Diagnostics) -> bool:
    """Whether fields of a stage stand beside its kind instead of below it, which is told at each of them."""
    if not isinstance(node, MapNode) or len(node.entries) < 2:
        return False
    kind = str(node.entries[0].key.value)
    cls = REGISTRY.get(kind)
    fields = {a.name for a in cls.attributes()} if cls is not None else set[str]()
    beside = [entry.key for entry in node.entries[1:]]
    if not all(str(key.value) in fields for key in beside):
        return False
    for key in beside:
        message = f"'{key.value}' is a field of '{kind}', and stands beside it"
        problems.error("bad-stage", message, key.span, f"indent it below `{kind}:`")
    return True


def _fields(
    kind: str, body: Node | None, attributes: Mapping[str, Attribute], head: Scalar, problems: Diagnostics
) -> dict[str, Node] | None:
    if body is None or (isinstance(body, Scalar) and body.value is None):
        return {}
    main = next((a.name for a in attributes.values() if a.main), None)
    if not isinstance(body, MapNode):
        if main is None:
            problems.error("bad-stage", f"stage '{kind}' takes fields, as in `{kind}: {{...}}`", body.span)
            return None
        return {main: body}
    out: dict[str, Node] = {}
    for entry in body.entries:
        name = str(entry.key.value)
        if name in attributes:
            out[name] = entry.value
        else:
            hint = nearest(name, attributes) or f"fields of '{kind}': {', '.join(attributes) or 'none'}"
            problems.error("unknown-field", f"stage '{kind}' has no field '{name}'", entry.key.span, hint)
    return out


class _Scope:
    """Names that a value may refer to."""

    def __init__(self, spec: Spec, usage: Usage, indices: Mapping[str, int]) -> None:
        self.spec = spec
        self.usage = usage
        self.indices = indices
        self.hint = ""

    def symbol(self, name: str) -> object:
        self.usage.symbols.add(name)
        return self.spec.symbol(name)

    def look_up(self, name: str, form: str = "${}") -> object:
        if name in self.indices:
            return self.indices[name]
        if name in self.spec.model:
            return self.symbol(name)
        known = [form.replace("{}", n) for n in self.indices]
        inside = (
            f"indices here: {', '.join(known)}" if known else "the stage stands in no `repeat`, so there is no index"
        )
        self.hint = nearest(name, [*self.indices, *self.spec.model]) or f"{inside}; or state it under `model:`"
        raise _Wrong(f"refers to '{form.replace('{}', name)}', which is neither a model symbol nor an index")

    def resolve(self, text: str) -> object:
        """The value that a text stands for: `$name`, `$name[i]`, or the text with its `{i}` filled in."""
        match = re.fullmatch(r"\$([A-Za-z_]\w*)(?:\[(\w+)\])?", text)
        if match is None:
            return self._filled_in(text)
        value = self.look_up(match[1])
        if match[2] is None:
            return value
        index = int(match[2]) if match[2].isdecimal() else self.look_up(match[2])
        if not isinstance(value, list):
            raise _Wrong(f"takes an entry of '${match[1]}', which is not a list")
        if not isinstance(index, int) or not 0 <= index < len(value):  # pyright: ignore[reportUnknownArgumentType]
            raise _Wrong(f"takes entry {index} of '${match[1]}', which has {len(value)} entries")  # pyright: ignore[reportUnknownArgumentType]
        return value[index]  # pyright: ignore[reportUnknownVariableType]

    def _filled_in(self, text: str) -> str:
        """The text with the value of `name` for every `{name}`."""
        left = re.sub(r"\{[A-Za-z_]\w*\}", "", text)
        if mark := re.search(r"[${}]", left):
            self.hint = _computes(text) or "`$name` or `$name[i]` stands alone; inside a text, write `{name}`"
            raise _Wrong(f"has a '{mark[0]}' that belongs to no reference")

        def value(match: re.Match[str]) -> str:
            found = self.look_up(match[1], "{{}}")
            if isinstance(found, bool) or not isinstance(found, (int, str)):
                raise _Wrong(f"fills in '{match[1]}', which is neither a whole number nor a text")
            return str(found)

        return re.sub(r"\{([A-Za-z_]\w*)\}", value, text)


_ARITHMETIC = re.compile(r"[\w\]})]\s*(\*\*?|//?|[-+%])\s*[\w${(]")


def _computes(text: str) -> str:
    """What to do for a text that looks as if it should be computed; empty for another."""
    return (
        "specs do not compute: state the number itself, or as an entry of `model:`" if _ARITHMETIC.search(text) else ""
    )


def _literal(value: object, span: Span) -> Node:
    if isinstance(value, list):
        return ListNode(tuple(_literal(v, span) for v in value), span)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
    return Scalar(value, span, quoted=True)  # pyright: ignore[reportArgumentType]


def convert(node: Node, attribute: Attribute, scope: _Scope) -> Any:
    """The Python value of a field; raises _Wrong."""
    facts = attribute.field.metadata
    if facts["raw"] and isinstance(node, Scalar) and isinstance(node.value, str):
        return node.value
    value = _as_type(node, attribute.type, scope)
    for number in value if isinstance(value, tuple) else (value,):  # pyright: ignore[reportUnknownVariableType]
        if isinstance(number, (int, float)) and not isinstance(number, bool):
            if facts["ge"] is not None and number < facts["ge"]:
                raise _Wrong(f"must be at least {facts['ge']}, not {number}")
            if facts["gt"] is not None and number <= facts["gt"]:
                raise _Wrong(f"must be greater than {facts['gt']}, not {number}")
            if isinstance(number, float) and not (_SMALLEST <= abs(number) <= _LARGEST or number == 0.0):
                raise _Wrong(f"must be a number that float32 holds, not {number}")
    return value  # pyright: ignore[reportUnknownVariableType]


def _as_type(node: Node, wanted: Any, scope: _Scope) -> Any:
    if wanted is Stages:
        if not isinstance(node, ListNode):
            raise _Wrong("must be a list of stages")
        return Stages(node.items)
    if isinstance(node, Scalar) and isinstance(node.value, str):
        resolved = scope.resolve(node.value)
        node = _literal(resolved, node.span)
    origin = get_origin(wanted)
    if origin in (Union, types.UnionType):
        return _as_union(node, get_args(wanted), scope)
    if origin is Literal:
        choices = get_args(wanted)
        value = node.value if isinstance(node, Scalar) else None
        if value not in choices or isinstance(value, bool) != any(isinstance(c, bool) for c in choices if c == value):
            if isinstance(value, str):
                scope.hint = nearest(value, [str(c) for c in choices])
            raise _Wrong(f"must be one of {', '.join(map(str, choices))}, not {_show(node)}")
        return value
    if origin is tuple:
        if not isinstance(node, ListNode):
            raise _Wrong(f"must be a list, not {_show(node)}")
        return tuple(_as_type(item, get_args(wanted)[0], scope) for item in node.items)
    if origin is dict:
        if not isinstance(node, MapNode):
            raise _Wrong(f"must be a mapping, not {_show(node)}")
        inner = get_args(wanted)[1]
        return {str(e.key.value): _as_type(e.value, inner, scope) for e in node.entries}
    if not isinstance(node, Scalar):
        raise _Wrong(f"must be {_TYPE_NAMES.get(wanted, 'a value')}, not {_show(node)}")
    value = node.value
    if wanted is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            raise _Wrong(f"must be a finite number, not {_show(node)}") from None
        if not math.isfinite(number):
            raise _Wrong(f"must be a finite number, not {_show(node)}")
        return number
    if wanted is int and isinstance(value, int) and not isinstance(value, bool):
        if abs(value) >= 2**53:
            raise _Wrong(f"must be a whole number below 2^53, not {_show(node)}")
        return value
    if (wanted is bool and isinstance(value, bool)) or (wanted is str and isinstance(value, str)):
        return value
    if wanted is type(None) and value is None:
        return None
    raise _Wrong(f"must be {_TYPE_NAMES.get(wanted, str(wanted))}, not {_show(node)}")


def _as_union(node: Node, choices: tuple[Any, ...], scope: _Scope) -> Any:
    if isinstance(node, Scalar) and node.value is None and type(None) in choices:
        return None
    wrong: list[str] = []
    for choice in choices:
        if choice is type(None):
            continue
        try:
            return _as_type(node, choice, scope)
        except _Wrong as e:
            wrong.append(str(e))
    raise _Wrong(" or ".join(wrong))


_TYPE_NAMES: dict[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def _show(node: Node) -> str:
    value = plain(node)
    text = (
        repr(value) if not isinstance(value, (dict, list)) else ("a mapping" if isinstance(value, dict) else "a list")
    )
    return text if len(text) <= 60 else text[:57] + "..."
