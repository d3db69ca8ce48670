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

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from functools import cache
from typing import Any, ClassVar, NamedTuple, Self, cast, dataclass_transform, get_args, get_origin

from flowc.text.nodes import Node

MAPS = (dict, Mapping)
"""Origins of the types of maps."""


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


class Either(NamedTuple):
    """Keys of which a record has exactly one; at most one where none is `needed`."""

    keys: tuple[str, ...]
    message: str
    needed: bool = True


class Facts(NamedTuple):
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
        code: of the error when the value is wrong, where the usual ones do not say it.
        sentence: the whole message of that error.
    """
    required = default is MISSING
    if required and symbol is not None:
        default = None
    facts = Facts(doc, default, required, name, symbol, main, ge, gt, le, least, unit, raw, called, each, item, noun,
                  form, keys, alone, code, sentence)  # fmt: skip
    if isinstance(default, dict):
        return field(kw_only=True, default_factory=cast("Any", dict), metadata={"facts": facts})
    return field(kw_only=True, default=default, metadata={"facts": facts})


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


@dataclass_transform(kw_only_default=True, field_specifiers=(attr, field), frozen_default=True)
class _Declared:
    pass


class Record(_Declared):
    """Base of all records. Fields are keyword-only; instances are frozen, and equal when their fields are."""

    what: ClassVar[str] = ""
    """What messages call the record: `a golden case`, `'weights'`."""
    written: ClassVar[str] = ""
    """What a right one is called in messages; without it, a mapping with its keys."""
    either: ClassVar[tuple[Either, ...]] = ()
    """Keys that exclude one another."""
    by_value: ClassVar[bool] = True
    """Whether two instances with equal fields are equal."""

    def __new__(cls, **values: Any) -> Self:
        """An instance, whose fields `__init__` sets: a dataclass's, made when the first instance is."""
        _complete(cls)
        return super().__new__(cls)

    @classmethod
    def attributes(cls) -> tuple[Attribute, ...]:
        """The declared fields in order."""
        return _attributes(cls)

    @classmethod
    def by_name(cls) -> dict[str, Attribute]:
        """The declared fields by their keys in the file."""
        return _by_name(cls)

    @classmethod
    def summary(cls) -> str:
        """First paragraph of the docstring."""
        return cls.paragraphs()[0].replace("\n", " ")

    @classmethod
    def paragraphs(cls) -> list[str]:
        """The whole docstring as Markdown, a blank line behind each paragraph."""
        return [line for part in inspect.cleandoc(cls.__doc__ or "").split("\n\n") for line in (part, "")]


@dataclass(frozen=True, slots=True)
class Attribute:
    """A declared field: its key in the file, its name in Python, its type in both, and what was said about it."""

    name: str
    into: str
    spelling: Any
    """Type of the value in the file: text, where a form says what it is read as."""
    type: Any
    facts: Facts

    @property
    def doc(self) -> str:
        """One line for people."""
        return self.facts.doc

    @property
    def symbol(self) -> str | None:
        """Entry of `model:` that stands in when the field is absent."""
        return self.facts.symbol

    @property
    def main(self) -> bool:
        """Whether the record may be written as this field alone."""
        return self.facts.main

    @property
    def required(self) -> bool:
        """Whether the field must be given (by itself or by its symbol); never when its type allows for null."""
        return self.facts.required and type(None) not in get_args(self.type)

    @property
    def default(self) -> Any:
        """Value when left out."""
        return self.facts.default


@cache
def _complete(cls: type[Record]) -> None:
    """Make a record's class a dataclass, its bases first.

    Not when it is declared: making one takes longer than importing its module, and a file uses few of all records.
    """
    for base in reversed(cls.__mro__):
        if not issubclass(base, Record) or "__dataclass_fields__" in vars(base):
            continue
        own: dict[str, str] = vars(base).get("__annotations__", {})
        if base is cls or any(not spelt.startswith("ClassVar") for spelt in own.values()):
            dataclass(frozen=True, kw_only=True, eq=cls.by_value)(base)


@cache
def _attributes(cls: type[Record]) -> tuple[Attribute, ...]:
    _complete(cls)
    found: list[Attribute] = []
    for declared in fields(cast("Any", cls)):
        facts: Facts | None = declared.metadata.get("facts")
        if facts is not None:
            type_ = _type(cls, declared)
            spelling = type_ if facts.form is None else _formed(type_)
            found.append(Attribute(facts.name or declared.name, declared.name, spelling, type_, facts))
    return tuple(found)


def _formed(type_: Any) -> Any:
    """What a file holds of a type whose values are texts of a form."""
    if get_origin(type_) in MAPS:
        return Mapping[get_args(type_)[0], str]
    return str | None if type(None) in get_args(type_) else str


@cache
def _by_name(cls: type[Record]) -> dict[str, Attribute]:
    return {a.name: a for a in cls.attributes()}


def _type(cls: type[Record], declared: Field[Any]) -> Any:
    """The type that a field's annotation spells; `get_type_hints` would read those of all class variables too."""
    owner = next(base for base in cls.__mro__ if declared.name in vars(base).get("__annotations__", ()))
    return eval(cast("str", declared.type), vars(sys.modules[owner.__module__]))
