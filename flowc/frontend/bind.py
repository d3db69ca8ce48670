"""Turns a node of the flow into a stage: names resolved, fields checked, nothing guessed.

A stage is written `kind`, `kind: value` (for its main field) or `kind: {field: value}`. In values, `$name` is a model
symbol or the index of a `repeat`, `$name[i]` an entry of a list, and `{i}` inside a text the index as digits.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from flowc.errors import Diagnostics, Span, nearest
from flowc.frontend.references import References
from flowc.frontend.stage import REGISTRY, Stage
from flowc.frontend.usage import Usage
from flowc.records.reader import Reader
from flowc.records.record import Attribute
from flowc.records.wording import Wording
from flowc.spec.spec import Spec
from flowc.text.nodes import MapNode, Node, Scalar


@dataclass(frozen=True, slots=True)
class Bound:
    """A stage with the places of its fields in the spec."""

    stage: Stage
    span: Span
    spans: Mapping[str, Span]


class _Wording(Wording):
    """Errors of stages: what they have are fields."""

    bad_type = "bad-value"
    unknown_key = "unknown-field"
    missing_key = "missing-field"

    def subject(self, key: str, what: str, where: str) -> str:
        return f"field '{key}' of {what}"

    def unknown(self, key: str, what: str, keys: Iterable[str]) -> tuple[str, str]:
        kind = what.partition(" ")[2]
        return f"{what} has no field '{key}'", nearest(key, keys) or f"fields of {kind}: {', '.join(keys) or 'none'}"

    def missing(self, attribute: Attribute, what: str, where: str) -> tuple[str, str]:
        instead = f"; or give the model symbol '{attribute.symbol}'" if attribute.symbol else ""
        hint = f"{attribute.name}: {attribute.doc.removesuffix('.')}{instead}"
        return f"{what} needs the field '{attribute.name}'", hint


_WORDING = _Wording()


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
    reader = Reader(problems, _WORDING, References(spec, usage, indices))
    given = _given(cls, body, reader)
    if given is None:
        return None
    read = reader.fill(cls, given, head.span, f"stage '{kind}'")
    return None if read.wrong else Bound(read.record(), head.span, read.spans)


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


def _given(cls: type[Stage], body: Node | None, reader: Reader) -> dict[str, Node] | None:
    """The fields that a stage is given; None where it takes no such body, which is told."""
    if body is None or (isinstance(body, Scalar) and body.value is None):
        return {}
    if isinstance(body, MapNode):
        return reader.given(cls, body, f"stage '{cls.kind}'")
    main = next((a.name for a in cls.attributes() if a.main), None)
    if main is None:
        message = f"stage '{cls.kind}' takes fields, as in `{cls.kind}: {{...}}`"
        reader.problems.error("bad-stage", message, body.span)
        return None
    return {main: body}
