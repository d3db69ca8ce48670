"""Text -> nodes with places: how a spec is read.

    read_spec(Path("model.yaml"))           YAML 1.2, core schema
    read_spec(Path("model.json"))           JSON, RFC 8259
    parse("{heads: 9}", "model.yaml")       the same for a text at hand

All that is wrong with a text is raised as one SpecError. What is accepted is bounded (see `flowc.text.limits`):
any function may walk it recursively.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path

from flowc.errors import Source, SpecError
from flowc.outside.reading import TooLarge, Unreadable, read_bytes
from flowc.text.limits import CONTROL, MAX_BYTES, Reading
from flowc.text.nodes import Entry, ListNode, MapNode, Node, Scalar, plain
from flowc.text.read_json import read_json
from flowc.text.read_yaml import read_yaml

__all__ = ["Entry", "ListNode", "MapNode", "Node", "Scalar", "parse", "plain", "read_spec"]

_REFUSED = CONTROL + "\ud800-\udfff\ufeff\ufffe\uffff"
_REFUSED_IN_JSON = re.compile(f"[{_REFUSED}]")
_REFUSED_IN_YAML = re.compile(f"[{_REFUSED}\x85\u2028\u2029]")  # PyYAML reads the last three as line breaks
_MOST_REFUSED = 20


def read_spec(path: Path) -> Node:
    """The value that a file holds: JSON when its name ends in .json, YAML 1.2 otherwise.

    Raises SpecError with everything that is wrong with the file.
    """
    try:
        data = read_bytes(path, MAX_BYTES)
    except FileNotFoundError:
        raise SpecError.of("missing-file", f"there is no file {path}") from None
    except TooLarge:
        raise SpecError.of("too-large", f"{path} is larger than {MAX_BYTES} bytes") from None
    except Unreadable as error:
        raise SpecError.of("unreadable-file", f"cannot read {path}: {error}") from None
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        source = Source(str(path), data.decode("utf-8", "replace"))
        index = len(data[: error.start].decode("utf-8"))
        span = Reading(source).span(index, index + 1)
        message = f"the byte 0x{data[error.start]:02X} is not UTF-8"
        raise SpecError.of("encoding", message, span, "save the file as UTF-8") from None
    return parse(text, str(path), json=path.suffix.lower() == ".json")


def parse(text: str, name: str, *, json: bool = False) -> Node:
    """The value that a text holds, as JSON or as YAML 1.2; `name` is what diagnostics call it.

    Raises SpecError with everything that is wrong with the text.
    """
    source = Source(name, text.removeprefix("\ufeff"))
    if len(source.text) > MAX_BYTES:
        raise SpecError.of("too-large", f"{name} is larger than {MAX_BYTES} characters")
    reading = Reading(source)
    _check_characters(reading, _REFUSED_IN_JSON if json else _REFUSED_IN_YAML)
    node = read_json(reading) if json else read_yaml(reading)
    reading.problems.raise_if_any()
    return node


def _check_characters(reading: Reading, refused: re.Pattern[str]) -> None:
    for match in itertools.islice(refused.finditer(reading.source.text), _MOST_REFUSED):
        message = f"the character U+{ord(match[0]):04X} has no place in a spec"
        hint = "write it as an escape between double quotes" if match[0] in "\x85\u2028\u2029" else ""
        reading.problems.error("encoding", message, reading.span(match.start(), match.end()), hint)
    reading.problems.raise_if_any()
