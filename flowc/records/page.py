"""The reference of a record as Markdown: a table of its keys, and one for each record inside it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

from flowc.records.describe import bounds, describe_field, when_left_out
from flowc.records.record import Attribute, Record


def tables(cls: type[Record]) -> list[str]:
    """Lines of the tables, outermost first; a record that stands in several places has one."""
    lines: list[str] = []
    for record, places in _records(cls).items():
        if record is not cls:
            lines += ["", f"{', '.join(f'`{place}`' for place in places)}: {record.summary()}", ""]
        lines += ["| key | type | when left out | meaning |", "| --- | --- | --- | --- |"]
        lines += [row(a) for a in record.attributes()]
        lines += ["", *(f"- {either.message[:1].upper()}{either.message[1:]}." for either in record.either)]
        while not lines[-1]:
            lines.pop()
    return lines


def row(attribute: Attribute) -> str:
    """The line of a field."""
    field = describe_field(attribute)
    name = f"`{field['name']}`" + (" (main)" if field["main"] else "")
    kind = ", ".join(filter(None, (field["type"], bounds(field), field["unit"])))
    cells = (name, kind, when_left_out(field), field["doc"])
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _records(cls: type[Record], place: str = "") -> dict[type[Record], list[str]]:
    """A record and those inside it, each with the keys that hold it."""
    found: dict[type[Record], list[str]] = {cls: [place]}
    for attribute in cls.attributes():
        for inner in _inside(attribute.spelling):
            for record, places in _records(inner, f"{place}.{attribute.name}".strip(".")).items():
                found.setdefault(record, []).extend(places)
    return found


def _inside(kind: Any) -> Iterator[type[Record]]:
    if isinstance(kind, type) and issubclass(kind, Record):
        yield kind
    for argument in get_args(kind):
        yield from _inside(argument)
