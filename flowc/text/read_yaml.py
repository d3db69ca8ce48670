"""YAML 1.2 text -> nodes, by the core schema and nothing else.

PyYAML splits the text into events; what its own YAML 1.1 rules make of a scalar is never asked:

    1e-5  .5  012  0o17  0x1F      numbers (012 is twelve)
    no  on  12:30  1_000  1e       texts
    !!int "3"  <<: *base           refused

Tabs outside quotes and block texts are refused too, which YAML 1.2 allows in places.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from typing import Any

import yaml

from flowc.errors import Span
from flowc.text.limits import Reading, shortened
from flowc.text.nodes import ListNode, MapNode, Node, Scalar

_NULL = {"", "~", "null", "Null", "NULL"}
_TRUTH = {"true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False}
_INTEGER = re.compile(r"[-+]?[0-9]+")
_PREFIXED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_REAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_NUMBER_START = frozenset("+-.0123456789")
_TAG = re.compile(r"!<[^>\s]*>?|![^\s,\[\]{}]*")

_SPACES = "\u00a0\u1680\u2000-\u200b\u202f\u205f\u3000"
_FALSE_SPACE = re.compile(rf"(?m)(?:^ *|^ *-[ -]*|: *)([{_SPACES}])")
"""A space of another kind where an item, a key or a value begins."""
_FALSE_IN_TEXT = re.compile(rf"(?:^|:)([{_SPACES}])")
"""The same in a text without quotes, which the space has become a part of."""

_HINTS = (
    (r"'\t'", "use spaces, not tabs, outside quotes"),
    ("cannot start any token", "quote a text that starts with this character"),
    ("mapping values are not allowed", "quote a text that holds ': ', and check the indentation"),
    ("expected <block end>", "the entries of one list or map start in the same column"),
    ("expected ',' or", "a bracket or a brace is not closed, or a text that holds one needs quotes"),
    ("could not find expected ':'", "a key is followed by ': '"),
    ("end of stream", "a quote, a bracket or a brace is not closed"),
)
"""What PyYAML complains of, and what most often mends it."""


def read_yaml(reading: Reading) -> Node:
    """The one document of the text; a text without any is null. Problems go to `reading`.

    Raises SpecError at once where reading cannot go on: at a syntax error and beyond a limit.
    """
    return _YamlReader(reading).document()


@dataclass(frozen=True, slots=True)
class _Anchored:
    """What an alias stands for, and how much reading it once more adds."""

    node: Node
    nodes: int
    characters: int
    depth: int


class _YamlReader:
    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._problems = reading.problems
        self._text = reading.source.text
        self._loader: Any = yaml.SafeLoader(self._text)  # its parser is not annotated
        self._anchors: dict[str, _Anchored | None] = {}  # None while the anchored node is being read
        self._end: int = 0  # where what was read last ends
        self._deepest: int = 0  # how deep the lists and maps of the innermost open node go

    def document(self) -> Node:
        self._next()  # the start of the stream
        start = self._next()
        if isinstance(start, yaml.StreamEndEvent):
            return Scalar(None, self._span_of(start), False)
        assert isinstance(start, yaml.DocumentStartEvent)
        if start.version and start.version != (1, 2):
            self._problems.error("yaml", "the document says that it is not YAML 1.2", self._span_of(start))
        root = self._node(self._next(), 1)
        self._next()  # the end of the document
        more = self._next()
        if not isinstance(more, yaml.StreamEndEvent):
            message = "a second document starts here, and a spec is one document"
            self._problems.error("multi-document", message, self._span_of(more))
        return root

    def _next(self) -> yaml.Event:
        try:
            return self._loader.get_event()
        except yaml.MarkedYAMLError as error:
            self._syntax_error(error)
        except (ValueError, OverflowError):  # from chr() and int() of what the text spells out
            self._problems.error("yaml", "no such character or number", self._span_at(self._loader.get_mark()))
        self._problems.raise_all()

    def _syntax_error(self, error: yaml.MarkedYAMLError) -> None:
        if self._false_space():
            return
        problem = str(error.problem or error.context)
        mark = error.problem_mark or error.context_mark or self._loader.get_mark()
        notes: tuple[tuple[str, Span], ...] = ()
        if error.context and error.context_mark and error.context_mark.index != mark.index:
            notes = ((str(error.context), self._span_at(error.context_mark)),)
        hint = next((hint for part, hint in _HINTS if part in problem), "")
        self._problems.error("yaml", problem, self._span_at(mark), hint, notes=notes)

    def _false_space(self) -> bool:
        """Whether a line that cannot be read begins an item or a value with a space that is none, which is told."""
        reached = self._loader.get_mark().line + 1
        found = False
        for match in _FALSE_SPACE.finditer(self._text):
            at = match.start(1)
            if self._text.count("\n", 0, at) > reached:
                break
            self._tell_false_space(at)
            found = True
        return found

    def _tell_false_space(self, at: int) -> None:
        character = self._text[at]
        name = unicodedata.name(character, "").lower()
        message = f"the character U+{ord(character):04X} ({name}) looks like a space and is none"
        self._problems.error("yaml", message, self._reading.span(at, at + 1), "type a plain space in its place")

    def _node(self, event: yaml.Event, depth: int) -> Node:
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, depth)
        assert isinstance(event, (yaml.ScalarEvent, yaml.CollectionStartEvent))
        span = self._span_of(event)
        anchor: str | None = event.anchor
        nodes, characters, deepest = self._reading.nodes, self._reading.characters, self._deepest
        self._deepest = depth - 1
        if event.tag is not None:
            self._refuse_tag(event)
        if anchor:
            self._anchors[anchor] = None
        if isinstance(event, yaml.ScalarEvent):
            self._reading.count(span, 1, len(event.value))
            node = self._scalar(event, span)
        else:
            self._deepest = depth
            self._reading.check_depth(span, depth)
            self._reading.count(span, 1, 0)
            node = self._list(event, depth) if isinstance(event, yaml.SequenceStartEvent) else self._map(event, depth)
        if anchor:
            read = self._reading
            self._anchors[anchor] = _Anchored(
                node, read.nodes - nodes, read.characters - characters, self._deepest - depth
            )
        self._deepest = max(self._deepest, deepest)
        return node

    def _alias(self, event: yaml.AliasEvent, depth: int) -> Node:
        span = self._span_of(event)
        self._end = self._end_of(event)
        name = str(event.anchor)
        anchored = self._anchors.get(name)
        if anchored is None:
            if name in self._anchors:
                self._problems.error("alias", f"the alias '*{shortened(name)}' lies inside its own anchor", span)
            else:
                self._problems.error("alias", f"no anchor '&{shortened(name)}' stands before this alias", span)
            return Scalar(None, span, False)
        self._reading.count(span, anchored.nodes, anchored.characters)
        self._reading.check_depth(span, depth + anchored.depth)
        self._deepest = max(self._deepest, depth + anchored.depth)
        return anchored.node

    def _list(self, start: yaml.CollectionStartEvent, depth: int) -> ListNode:
        items: list[Node] = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            items.append(self._node(event, depth + 1))
        return ListNode(tuple(items), self._span_from(start, event))

    def _map(self, start: yaml.CollectionStartEvent, depth: int) -> MapNode:
        pairs: list[tuple[Node, Node]] = []
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key = self._node(event, depth + 1)
            value = self._node(self._next(), depth + 1)
            at = self._start_of(event)
            if self._text[at - 1 : at] == "?" and self._end_of(event) > at:
                # YAML 1.2 reads [?a] as a text, PyYAML as a key
                message = "a '?' that marks a key is followed by a space"
                self._problems.error("yaml", message, key.span, "quote a text that starts with '?'")
            elif isinstance(key, Scalar) and key.value == "<<" and not key.quoted:
                message = "YAML 1.2 has no merge key '<<'"
                self._problems.error("merge-key", message, key.span, "write the entries out")
            else:
                pairs.append((key, value))
        return self._reading.map(pairs, self._span_from(start, event))

    def _scalar(self, event: yaml.ScalarEvent, span: Span) -> Scalar:
        quoted = event.style is not None
        self._end = self._end_of(event)
        if quoted:
            return Scalar(self._reading.text(event.value, span), span, True)
        if match := _FALSE_IN_TEXT.search(event.value):
            self._tell_false_space(self._text.index(match[1], self._start_of(event)))
        return Scalar(self._plain(event.value, span), span, False)

    def _plain(self, text: str, span: Span) -> str | int | float | bool | None:
        if text[:1] in _NUMBER_START:
            if _INTEGER.fullmatch(text):
                return self._reading.integer(text, 10, span)
            if _PREFIXED.fullmatch(text):
                return self._reading.integer(text, 0, span)
            if _REAL.fullmatch(text):
                return self._reading.real(text, span)
            if _NOT_FINITE.fullmatch(text):
                return float(text.replace(".", ""))
        if text in _NULL:
            return None
        return _TRUTH.get(text, text)

    def _refuse_tag(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent) -> None:
        start = self._text.index("!", self._start_of(event))
        tag = _TAG.match(self._text, start)
        assert tag is not None
        hint = "quote the text if a text is meant" if tag[0] in ("!", "!!str") else "leave the tag out"
        span = self._reading.span(start, tag.end())
        self._problems.error("tag", f"the tag '{shortened(tag[0])}': values of a spec have no tags", span, hint)

    def _start_of(self, event: yaml.Event) -> int:
        assert event.start_mark is not None
        return event.start_mark.index

    def _end_of(self, event: yaml.Event) -> int:
        assert event.end_mark is not None
        if isinstance(event, yaml.ScalarEvent) and event.style in ("|", ">"):
            # PyYAML ends a block text where the next token starts
            start = self._start_of(event)
            return start + len(self._text[start : event.end_mark.index].rstrip(" \t\r\n"))
        return event.end_mark.index

    def _span_of(self, event: yaml.Event) -> Span:
        return self._reading.span(self._start_of(event), self._end_of(event))

    def _span_from(self, start: yaml.CollectionStartEvent, end: yaml.Event) -> Span:
        if self._end_of(end) > self._start_of(end):  # a closing bracket; a block's end is an empty place further on
            self._end = self._end_of(end)
        return self._reading.span(self._start_of(start), self._end)

    def _span_at(self, mark: yaml.Mark) -> Span:
        return self._reading.span(mark.index, mark.index + 1)
