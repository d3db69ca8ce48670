"""JSON text (RFC 8259) -> nodes.

A reader of its own, because `json.loads` keeps no places and keeps the last of two equal keys. The grammar is
the strict one: no comments, no trailing commas, no NaN, no leading zeros.
"""

from __future__ import annotations

import re
from typing import NoReturn

from flowc.text.limits import Reading
from flowc.text.nodes import ListNode, MapNode, Node, Scalar

_SPACE = re.compile(r"[ \t\r\n]*")
_STRING = re.compile(r'"((?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+)"')
_STRING_START = re.compile(r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+')
_ESCAPE = re.compile(r"\\(?:u([0-9a-fA-F]{4})|(.))")
_ESCAPED = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_WORD = re.compile(r"[^\s,:\[\]{}\"']+|.", re.DOTALL)
_WORDS = {"null": None, "true": True, "false": False}


def read_json(reading: Reading) -> Node:
    """The value of the text. Problems go to `reading`.

    Raises SpecError at once where reading cannot go on: at a syntax error and beyond a limit.
    """
    return _JsonReader(reading).document()


class _JsonReader:
    def __init__(self, reading: Reading) -> None:
        self._reading = reading
        self._text = reading.source.text
        self._at: int = 0
        self._end: int = 0  # where the character taken last ends

    def document(self) -> Node:
        self._skip_space()
        node = self._value(1)
        self._skip_space()
        if self._at < len(self._text):
            self._fail("the value has ended, and there is more text")
        return node

    def _skip_space(self) -> None:
        match = _SPACE.match(self._text, self._at)
        self._at = match.end() if match else self._at

    def _ahead(self) -> str:
        return self._text[self._at : self._at + 1]

    def _take(self, character: str) -> bool:
        self._skip_space()
        if self._ahead() != character:
            return False
        self._end = self._at = self._at + 1
        self._skip_space()
        return True

    def _value(self, depth: int) -> Node:
        match self._ahead():
            case "{":
                return self._map(depth)
            case "[":
                return self._list(depth)
            case '"':
                return self._string()
            case _:
                return self._word()

    def _list(self, depth: int) -> ListNode:
        start = self._open(depth)
        items: list[Node] = []
        while not self._take("]"):
            if items and not self._take(","):
                self._fail("expected ',' or ']' after an item of a list")
            if items and self._ahead() == "]":
                self._fail("expected an item after ','", "JSON has no comma after the last item")
            items.append(self._value(depth + 1))
        return ListNode(tuple(items), self._reading.span(start, self._end))

    def _map(self, depth: int) -> MapNode:
        start = self._open(depth)
        pairs: list[tuple[Node, Node]] = []
        while not self._take("}"):
            if pairs and not self._take(","):
                self._fail("expected ',' or '}' after an entry of a map")
            if pairs and self._ahead() == "}":
                self._fail("expected an entry after ','", "JSON has no comma after the last entry")
            if self._ahead() != '"':
                self._fail("expected a key", "keys stand between double quotes")
            key = self._string()
            if not self._take(":"):
                self._fail("expected ':' after a key")
            pairs.append((key, self._value(depth + 1)))
        return self._reading.map(pairs, self._reading.span(start, self._end))

    def _open(self, depth: int) -> int:
        start = self._at
        span = self._reading.span(start, start + 1)
        self._reading.check_depth(span, depth)
        self._reading.count(span, 1, 0)
        self._at += 1
        self._skip_space()
        return start

    def _string(self) -> Scalar:
        match = _STRING.match(self._text, self._at)
        if match is None:
            self._fail_in_string()
        span = self._reading.span(match.start(), match.end())
        self._at = match.end()
        value = _ESCAPE.sub(_unescape, match[1]) if "\\" in match[1] else match[1]
        self._reading.count(span, 1, len(value))
        return Scalar(self._reading.text(value, span), span, True)

    def _word(self) -> Scalar:
        match = _WORD.match(self._text, self._at)
        if match is None:
            self._fail("expected a value, but the text ends here")
        word = match[0]
        span = self._reading.span(match.start(), match.end())
        self._reading.count(span, 1, len(word))
        self._at = match.end()
        if word in _WORDS:
            return Scalar(_WORDS[word], span, False)
        if number := _NUMBER.fullmatch(word):
            fraction, exponent = number.groups()
            is_real = fraction is not None or exponent is not None
            read = self._reading.real(word, span) if is_real else self._reading.integer(word, 10, span)
            return Scalar(read, span, False)
        self._at = match.start()
        self._fail("expected a value", _hint(word), len(word))

    def _fail_in_string(self) -> NoReturn:
        start = self._at
        match = _STRING_START.match(self._text, start)
        self._at = match.end() if match else start
        if self._ahead() == "\\":
            self._fail("no such escape in a JSON text", r"the escapes are \" \\ \/ \b \f \n \r \t \uXXXX", 2)
        if self._ahead() == "\t":
            self._fail("a tab inside a JSON text", r"write it as \t")
        self._at = start
        self._fail("the text has no closing quote on its line", width=1)

    def _fail(self, message: str, hint: str = "", width: int = 1) -> NoReturn:
        self._reading.problems.error("json", message, self._reading.span(self._at, self._at + width), hint)
        self._reading.problems.raise_all()


def _unescape(match: re.Match[str]) -> str:
    code, character = match.groups()
    return chr(int(code, 16)) if code else _ESCAPED.get(character, character)


def _hint(word: str) -> str:
    if word.lower() in _WORDS:
        return f"write {word.lower()}"
    if word in ("NaN", "Infinity", "-Infinity"):
        return "JSON has finite numbers only"
    if word[0] in "+-.0123456789":
        return "a JSON number has no plus sign, no leading zero, and digits on both sides of its point"
    return "JSON has no comments" if word[0] in "/#" else "texts stand between double quotes"
