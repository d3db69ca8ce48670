"""What flowc says when it cannot go on.

    FlowError                 everything a user can cause; carries diagnostics and an exit code
    ├── CheckFailed     1     a check of a finished build failed (verify, golden, diff)
    ├── SpecError       2     the command line or the spec is wrong, or asks for what flowc does not do
    ├── WeightsError    3     weights are missing, broken or do not fit the spec
    └── MissingTool     4     something is missing on this machine
    InternalError       70    a bug in flowc

Errors are collected in a `Diagnostics` list and raised together, so that one run reports all it can find.
"""

from __future__ import annotations

import difflib
import errno
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import ClassVar, NoReturn, Self

LINE_BREAK = re.compile(r"\r\n|\r|\n")  # of YAML 1.2 and JSON; str.splitlines knows more
MOST_SHOWN = 100
MOST_COLLECTED = 1000  # a hostile spec can be wrong in very many places


@dataclass(frozen=True, slots=True)
class Source:
    """A text that was read, and the name to show for it."""

    name: str
    text: str = field(repr=False)

    def line(self, number: int) -> str:
        """Text of a line, counted from 1, without its newline; empty past the end."""
        lines = _lines(self.text)
        return lines[number - 1] if 0 < number <= len(lines) else ""


@dataclass(frozen=True, slots=True)
class Span:
    """A place in a source: lines and columns count from 1; the end column is exclusive."""

    source: Source
    line: int
    column: int
    end_line: int
    end_column: int

    def __str__(self) -> str:
        return f"{Path(self.source.name).name}:{self.line}:{self.column}"


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One thing that is wrong (or worth a warning), its place, and how to mend it."""

    code: str
    message: str
    span: Span | None = None
    hint: str = ""
    notes: tuple[tuple[str, Span | None], ...] = ()
    severity: str = "error"

    def render(self) -> str:
        """The text a user sees: code, message, place, source line with carets, notes, hint."""
        parts = [f"{self.severity}[{self.code}]: {harmless(self.message)}"]
        if self.span is not None:
            parts.append(_excerpt(self.span))
        for message, span in self.notes:
            parts.append(f"note: {harmless(message)}")
            if span is not None:
                parts.append(_excerpt(span))
        if self.hint:
            parts.append(f"help: {harmless(self.hint)}")
        return "\n".join(parts)

    def as_json(self) -> dict[str, object]:
        """The same facts as plain values."""
        place: dict[str, object] = {}
        if self.span is not None:
            place = {"file": self.span.source.name, "line": self.span.line, "column": self.span.column}
        return {"severity": self.severity, "code": self.code, "message": self.message, "hint": self.hint, **place}


@lru_cache(maxsize=4)
def _lines(text: str) -> list[str]:
    return LINE_BREAK.split(text)


def harmless(text: str) -> str:
    """The text on one line, without characters that a terminal would obey, or that cannot be printed.

    A name from a stranger's file must not look like a line of flowc's own.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _columns(text: str) -> int:
    """How many columns of a terminal the text takes."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def _excerpt(span: Span) -> str:
    line = "".join(c if c.isprintable() else " " if c == "\t" else "\ufffd" for c in span.source.line(span.line))
    start = min(span.column - 1, len(line))
    end = min(span.end_column - 1, len(line)) if span.end_line == span.line else len(line)
    first = 0 if len(line) <= 160 else max(0, min(start - 40, len(line) - 150))
    last = len(line) if len(line) <= 160 else first + 150
    before = "..." * (first > 0) + line[first:start]
    shown = "..." * (first > 0) + line[first:last] + "..." * (last < len(line))
    bar = " " * len(str(span.line)) + " |"
    return "\n".join(
        [
            f"{bar[:-2]}--> {harmless(span.source.name)}:{span.line}:{span.column}",
            bar,
            f"{span.line} | {shown}".rstrip(),
            f"{bar} {' ' * _columns(before)}{'^' * max(1, _columns(line[start : min(end, last)]))}",
        ]
    )


class FlowError(Exception):
    """Something a user can mend. `diagnostics` is never empty."""

    exit_code: ClassVar[int] = 2

    def __init__(self, diagnostics: Iterable[Diagnostic]) -> None:
        self.diagnostics = tuple(diagnostics)
        super().__init__(self.render())

    def render(self) -> str:
        """The diagnostics as text, a blank line between them; past `MOST_SHOWN` their number only."""
        shown = [d.render() for d in self.diagnostics[:MOST_SHOWN]]
        more = len(self.diagnostics) - len(shown)
        return "\n\n".join([*shown, f"... and {more} more"] if more else shown)

    @classmethod
    def of(cls, code: str, message: str, span: Span | None = None, hint: str = "") -> Self:
        """An error of this class with one diagnostic."""
        return cls([Diagnostic(code, message, span, hint)])


class CheckFailed(FlowError):
    """A check of a finished build failed."""

    exit_code = 1


class SpecError(FlowError):
    """The command line or the spec is wrong, or asks for what flowc does not do."""

    exit_code = 2


class WeightsError(FlowError):
    """Weights are missing, broken or do not fit the spec."""

    exit_code = 3


class MissingTool(FlowError):
    """Something is missing on this machine."""

    exit_code = 4


class InternalError(Exception):
    """A bug in flowc: an invariant of its own does not hold."""


class Diagnostics:
    """Collects what is wrong, so that everything is reported at once."""

    def __init__(self) -> None:
        self._found: dict[tuple[type[FlowError], Diagnostic], None] = {}  # a set that keeps its order

    def __bool__(self) -> bool:
        return bool(self._found)

    def error(
        self,
        code: str,
        message: str,
        span: Span | None = None,
        hint: str = "",
        *,
        notes: tuple[tuple[str, Span | None], ...] = (),
        kind: type[FlowError] = SpecError,
    ) -> None:
        """Remember an error; the same one at the same place counts once. Raises them at `MOST_COLLECTED`."""
        self._found[kind, Diagnostic(code, message, span, hint, notes)] = None
        if len(self._found) >= MOST_COLLECTED:
            self.raise_all()

    def include(self, error: FlowError) -> None:
        """Remember everything that a caught error carries."""
        for diagnostic in error.diagnostics:
            self._found[type(error), diagnostic] = None

    def update(self, other: Diagnostics) -> None:
        """Remember everything that another collection holds."""
        self._found |= other._found

    def raise_if_any(self) -> None:
        """Raise what was collected; a wrong spec outranks wrong weights in the exit code."""
        if self._found:
            self.raise_all()

    def raise_all(self) -> NoReturn:
        """Raise what was collected."""
        kind = min((k for k, _ in self._found), key=lambda k: (k is not SpecError, k.exit_code))
        raise kind(d for _, d in self._found)


_WRONG_PATH = (errno.ENOENT, errno.ENOTDIR, errno.EEXIST, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL)


def cannot_write(path: Path, error: OSError) -> FlowError:
    """Why a file could not be written: SpecError for a path that is wrong, MissingTool for a full disk and the like."""
    reason = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "the disk quota is used up"}.get(
        error.errno or 0, (error.strerror or str(error)).lower()
    )
    message = f"cannot write {path}: {reason}"
    if error.errno in _WRONG_PATH:
        return SpecError.of("bad-output", message)
    return MissingTool.of("cannot-write", message)


def nearest(name: str, known: Iterable[str]) -> str:
    """A hint that names the known word closest to a misspelt one, or an empty text."""
    match = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f"did you mean '{match[0]}'?" if match else ""
