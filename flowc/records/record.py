"""A record: a class whose annotated fields say what a file holds (see `flowc.records.declare`)."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from dataclasses import MISSING, dataclass
from functools import cache
from typing import Any, ClassVar, Self, Union, dataclass_transform, get_args, get_origin

from flowc.records.declare import Either, Facts, attr

MAPS = (dict, Mapping)
"""Origins of the types of maps."""


@dataclass_transform(kw_only_default=True, field_specifiers=(attr,), frozen_default=True)
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
    nulls: ClassVar[bool] = True
    """Whether null may be written where a type allows for None."""
    placed: ClassVar[bool] = False
    """Whether the record has a field `span`, without `attr`, that takes its place."""
    by_value: ClassVar[bool] = True
    """Whether two instances with equal fields are equal."""

    def __init__(self, **values: Any) -> None:
        for name, default in _fields(type(self)).items():
            value = values.pop(name, default)
            if value is MISSING:
                raise TypeError(f"{type(self).__name__} needs '{name}'")
            object.__setattr__(self, name, value)
        if values:
            raise TypeError(f"{type(self).__name__} has no {', '.join(values)}")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"a {type(self).__name__} does not change")

    __delattr__ = __setattr__  # pyright: ignore

    def __eq__(self, other: object) -> bool:
        if not self.by_value:
            return self is other
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), *vars(self).values())) if self.by_value else object.__hash__(self)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{k}={v!r}' for k, v in vars(self).items())})"

    def but(self, **changes: Any) -> Self:
        """The same with other values of some fields."""
        return type(self)(**{**vars(self), **changes})

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
def _fields(cls: type[Record]) -> dict[str, Any]:
    """Default of each field, MISSING where there is none; those of bases first.

    What dataclasses does but for the methods that it makes for each class, which take longer than reading a small spec.
    """
    found: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        for name, spelt in vars(base).get("__annotations__", {}).items():
            if not spelt.startswith("ClassVar"):
                said = vars(base).get(name, MISSING)
                found[name] = said.default if isinstance(said, Facts) else said
    return found


@cache
def _attributes(cls: type[Record]) -> tuple[Attribute, ...]:
    found: list[Attribute] = []
    for into in _fields(cls):
        owner = next(base for base in cls.__mro__ if into in vars(base).get("__annotations__", ()))
        facts = vars(owner).get(into)
        if isinstance(facts, Facts):
            type_ = _type(vars(owner)["__annotations__"][into], owner.__module__)
            spelling = type_ if facts.form is None else _formed(type_)
            if not cls.nulls and type(None) in get_args(spelling):
                spelling = Union[tuple(t for t in get_args(spelling) if t is not type(None))]  # noqa: UP007
            found.append(Attribute(facts.name or into, into, spelling, type_, facts))
    return tuple(found)


def _formed(type_: Any) -> Any:
    """What a file holds of a type whose values are texts of a form."""
    kinds = (type_, *get_args(type_))
    of_map = next((Mapping[get_args(kind)[0], str] for kind in kinds if get_origin(kind) in MAPS), None)
    return Union[(of_map or str, *(kind for kind in kinds if kind is type(None)))]


@cache
def _by_name(cls: type[Record]) -> dict[str, Attribute]:
    return {a.name: a for a in cls.attributes()}


@cache
def _type(spelt: str, module: str) -> Any:
    """The type that an annotation spells; `get_type_hints` would read those of all class variables too."""
    return eval(spelt, vars(sys.modules[module]))
