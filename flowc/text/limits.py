"""What the readers of YAML and JSON share: limits, numbers, texts and maps.

A spec is untrusted input: its size, depth and number of values are bounded, with every alias counted as if
it were written out, so that whatever a reader accepts can be walked recursively and written out in full.
"""

from __future__ import annotations

import bisect
import math
import re
from dataclasses import dataclass, field

from flowc.errors import LINE_BREAK, Diagnostics, Source, Span
from flowc.text.nodes import Entry, ListNode, MapNode, Node, Scalar

MAX_BYTES = 8 * 2**20
MAX_DEPTH = 64
MAX_NODES = 200_000
MAX_NUMBER_LENGTH = 100
INTEGERS = range(-(2**63), 2**64)
"""The integers that an int64 or a uint64 holds."""

CONTROL = "\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f"
"""What `[...]` of a regular expression matches as control characters: all but tabs and line breaks."""

_CONTROL = re.compile(f"[{CONTROL}]")


@dataclass(slots=True)
class Reading:
    """One text being read: what was found wrong so far, and how much was read."""

    source: Source
    problems: Diagnostics = field(default_factory=Diagnostics)
    nodes: int = 0
    characters: int = 0
    _line_starts: list[int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._line_starts = [0, *(match.end() for match in LINE_BREAK.finditer(self.source.text))]

    def span(self, start: int, end: int) -> Span:
        """The place of `text[start:end]`."""
        return Span(self.source, *self._place(start), *self._place(end))

    def _place(self, index: int) -> tuple[int, int]:
        line = bisect.bisect_right(self._line_starts, index)
        return line, index - self._line_starts[line - 1] + 1

    def count(self, span: Span, nodes: int, characters: int) -> None:
        """Add to what was read; end the reading when it is too much."""
        self.nodes += nodes
        self.characters += characters
        if self.nodes > MAX_NODES:
            message = f"more than {MAX_NODES} values, aliases counted as if written out"
            self.problems.error("too-many-nodes", message, span)
            self.problems.raise_all()
        if self.characters > MAX_BYTES:
            message = f"more than {MAX_BYTES} characters of text, aliases counted as if written out"
            self.problems.error("too-large", message, span)
            self.problems.raise_all()

    def check_depth(self, span: Span, depth: int) -> None:
        """End the reading when lists and maps are nested too deeply."""
        if depth > MAX_DEPTH:
            self.problems.error("too-deep", f"lists and maps are nested more than {MAX_DEPTH} deep", span)
            self.problems.raise_all()

    def text(self, value: str, span: Span) -> str:
        """A text as it came out of its quotes: UTF-16 pairs joined, no control characters."""
        if not value.isascii() and any("\ud800" <= c <= "\udfff" for c in value):
            units = value.encode("utf-16-le", "surrogatepass")
            try:
                value = units.decode("utf-16-le")
            except UnicodeDecodeError:
                value = units.decode("utf-16-le", "replace")
                self.problems.error("encoding", "the text holds half of a UTF-16 surrogate pair", span)
        if control := _CONTROL.search(value):
            self.problems.error("encoding", f"the text holds the control character U+{ord(control[0]):04X}", span)
        return value

    def integer(self, digits: str, base: int, span: Span) -> int:
        """The integer that digits stand for, or 0 and a problem when it is out of range."""
        value = int(digits, base) if len(digits) <= MAX_NUMBER_LENGTH else None
        if value is None or value not in INTEGERS:
            message = f"the integer {shortened(digits)} does not fit 64 bits"
            self.problems.error("number", message, span, "write it with a decimal point if a float is meant")
            return 0
        return value

    def real(self, digits: str, span: Span) -> float:
        """The float64 that digits stand for, or 0 and a problem when there is none near it."""
        if len(digits) > MAX_NUMBER_LENGTH:
            self.problems.error("number", f"a number of {len(digits)} characters", span, "17 digits say any float64")
            return 0.0
        value = float(digits)
        mantissa = re.split("[eE]", digits)[0]
        if math.isinf(value) or (value == 0 and re.search("[1-9]", mantissa)):
            size = "large" if value else "small"
            self.problems.error("number", f"{shortened(digits)} is too {size} for a float64", span)
            return 0.0
        return value

    def map(self, pairs: list[tuple[Node, Node]], span: Span) -> MapNode:
        """A map of these keys and values, after every key that is wrong has been reported."""
        entries: dict[str, Entry] = {}
        for key, value in pairs:
            if not isinstance(key, Scalar) or not isinstance(key.value, str):
                self._bad_key(key)
            elif first := entries.get(key.value):
                note = ("first given here", first.key.span)
                message = f"the key {shortened(key.value)!r} is given again"
                self.problems.error("duplicate-key", message, key.span, notes=(note,))
            else:
                entries[key.value] = Entry(key, value)
        return MapNode(tuple(entries.values()), span)

    def _bad_key(self, key: Node) -> None:
        match key:
            case Scalar(value=None):
                self.problems.error(
                    "bad-key", "a key must be a text, not null", key.span, "quote it if a text is meant"
                )
            case Scalar():
                kind = "truth value" if isinstance(key.value, bool) else "number"
                message = f"a key must be a text, not the {kind} {key.value}"
                self.problems.error("bad-key", message, key.span, "quote it if a text is meant")
            case ListNode():
                self.problems.error("bad-key", "a key must be a text, not a list", key.span)
            case MapNode():
                hint = "quote a text that starts with '{' or '$'" if key.span.line == key.span.end_line else ""
                self.problems.error("bad-key", "a key must be a text, not a map", key.span, hint)


def shortened(text: str) -> str:
    """The text, cut to what a message can show."""
    return text if len(text) <= 60 else f"{text[:57]}..."
