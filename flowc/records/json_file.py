"""JSON that programs write, read by a record's declaration.

Reading it with places takes longer and has narrower limits. So places are looked for only when something is wrong;
where they cannot be had, an error says the path inside the file alone.
"""

from __future__ import annotations

from typing import TypeVar

from flowc.errors import Diagnostic, Diagnostics, Source, Span, SpecError
from flowc.outside.reading import json_of
from flowc.records.reader import Read, Reader
from flowc.records.record import Record
from flowc.records.values import node_of
from flowc.records.wording import JsonWording
from flowc.text.nodes import Node
from flowc.text.source import parse

R = TypeVar("R", bound=Record)

_NOWHERE = Span(Source("", ""), 1, 1, 1, 1)


def read_json_record(cls: type[R], data: bytes, name: str, code: str) -> tuple[Read[R], object]:
    """What the bytes of a JSON file say of a record, and their plain value; `name` is what messages call the file.

    Raises:
        Unreadable: it is no JSON, or too deep.
        SpecError: all that is wrong, with this code.
    """
    value: object = json_of(data)
    problems = Diagnostics()
    read = _read(cls, node_of(value, _NOWHERE), problems, code)
    if read is not None and not problems:
        return read, value
    try:
        root = parse(data.decode("utf-8"), name, json=True)
    except SpecError:  # too large for it, or a key that is given twice
        try:
            problems.raise_all()
        except SpecError as error:
            raise SpecError(
                Diagnostic(d.code, f"{name}: {d.message}", None, d.hint) for d in error.diagnostics
            ) from None
    placed = Diagnostics()
    _read(cls, root, placed, code)
    placed.raise_all()


def _read(cls: type[R], root: Node, problems: Diagnostics, code: str) -> Read[R] | None:
    return Reader(problems, JsonWording(code)).read(cls, root)
