"""What a file, or a part of one, may say: a class with a field for each key.

    class Prompt(Record):
        '''What a decoder is asked.'''

        what = "a prompt"
        either = (Either(("ids", "text"), "a prompt has either `ids` or `text`"),)
        ids: tuple[int, ...] = attr(doc="Token ids.", default=(), least=1, ge=0)
        text: str | None = attr(doc="The prompt's text.", default=None, least=1)
        steps: int = attr(doc="Tokens that the model goes on.", default=8, ge=1, le=4096)

Types are int, float, bool, str, None, object (any value, left as it is), Literal, unions, tuple[T, ...] for lists,
Mapping[str, T] for maps, other records, and what derives from Own. `flowc.records.reader` reads files by such classes,
`flowc.records.schema` and `flowc.records.describe` tell what they take. A field without `attr` is no key of the file.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import MISSING, dataclass
from typing import Any, ClassVar, NamedTuple

from flowc.text.nodes import Node


class Context:
    """What the texts of a file may refer to: nothing, unless a reader is given another one."""

    def resolve(self, text: str) -> object:
        """The value that a text stands for; raises Wrong."""
        return text

    def fallback(self, symbol: str) -> Node | None:
        """The value that stands in for a field with this symbol, if there is one."""
        return None

    def check(self, number: float) -> None:
        """Refuse a float that the file's field cannot hold; raises Wrong."""

    def advice(self, text: str) -> str:
        """A hint for a text that stands where no text may; empty without one."""
        return ""


class Form(NamedTuple):
    """What a text must look like, and what it is read as."""

    called: str
    """In messages and in the reference: `a bare file name`."""
    parse: Callable[[str, Any], object | None]
    """The value of a text, given the reader's Context; None when the text is not of this form."""
    pattern: str = ""
    """For the JSON Schema, where a regular expression can say it."""
    hint: str = ""
    is_name: bool = False
    """Whether `called` is what the text names: `'a b' cannot be the name of an output`."""


def named_by(pattern: re.Pattern[str], called: str, hint: str = "") -> Form:
    """The form of names that a pattern matches whole; `called` as in `the name of an output`."""

    def parse(text: str, _: Context) -> str | None:
        return text if pattern.fullmatch(text) else None

    return Form(called, parse, f"^{pattern.pattern}$", hint, is_name=True)


class Either(NamedTuple):
    """Keys of which a record has exactly one; at most one where none is `needed`."""

    keys: tuple[str, ...]
    message: str
    needed: bool = True


@dataclass(slots=True, eq=False, repr=False)
class Facts:
    """What was said about a field; see `attr`."""

    doc: str
    default: Any
    required: bool
    name: str | None
    symbol: str | None
    main: bool
    ge: float | None
    gt: float | None
    le: float | None
    least: int
    unit: str
    raw: bool
    called: str
    each: str
    item: str
    noun: str
    form: Form | None
    keys: Form | None
    alone: bool
    code: str
    sentence: str


def attr(
    *,
    doc: str,
    default: Any = MISSING,
    name: str | None = None,
    symbol: str | None = None,
    main: bool = False,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    least: int = 0,
    unit: str = "",
    raw: bool = False,
    called: str = "",
    each: str = "",
    item: str = "",
    noun: str = "",
    form: Form | None = None,
    keys: Form | None = None,
    alone: bool = False,
    code: str = "",
    sentence: str = "",
) -> Any:
    """Declare a field.

    Args:
        doc: one line for people.
        default: the value when the field is left out; without one, and without a symbol, it must be given.
        name: the key in the file, where it is no Python name.
        symbol: the entry of the spec's `model:` block that stands in when the field is left out.
        main: whether the record may be written as this field alone.
        ge: least number.
        gt: bound that numbers exceed.
        le: largest number.
        least: fewest characters, items or entries.
        unit: of a number, for people.
        raw: whether a text stands for itself, whatever it refers to.
        called: what a right value is called in messages, where its type does not say it.
        each: what an error calls one entry of a list or a map, as in `input '{key}'`; else it is about the whole field.
        item: what a right entry is called in messages.
        noun: what keys of a map are called, where they are choices: `phase`.
        form: what a text must look like.
        keys: what keys of a map must look like.
        alone: whether one item may stand for a list of it.
        code: of the error when the field is missing, or has another value than it must have.
        sentence: the whole message of that error.
    """
    required = default is MISSING
    if required and symbol is not None:
        default = None
    return Facts(doc, default, required, name, symbol, main, ge, gt, le, least, unit, raw, called, each, item, noun,
                 form, keys, alone, code, sentence)  # fmt: skip


class Own:
    """Base of types that read their node by themselves."""

    title: ClassVar[str] = ""
    """For the reference: `list of stages`."""
    takes: ClassVar[tuple[type[Node], ...]] = ()
    """Kinds of nodes that may be of this type."""

    @classmethod
    def of(cls, node: Node) -> Any:
        """The value of a node; raises Wrong."""
        raise NotImplementedError

    @classmethod
    def schema(cls) -> dict[str, Any]:
        """The type in JSON Schema."""
        raise NotImplementedError

    def spelt(self) -> Any:
        """The value as a file spells it."""
        raise NotImplementedError
