"""Reads a tree of nodes by a record's declaration: every error at its place, all of them at once.

problems = Diagnostics()
read = Reader(problems).read(Prompt, node)
problems.raise_if_any()
prompt = read.record
"""

from __future__ import annotations

import types
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeGuard, TypeVar, Union, cast, get_args, get_origin

from flowc.errors import Diagnostics, Span, nearest
from flowc.records.declare import Context, Facts, Form, Own
from flowc.records.record import MAPS, Attribute, Record
from flowc.records.values import Told, Wrong, choice, node_of, scalar, show
from flowc.records.wording import Wording
from flowc.text.nodes import ListNode, MapNode, Node, Scalar, plain

R = TypeVar("R", bound=Record)


@dataclass(frozen=True, slots=True)
class Read(Generic[R]):
    """What a node says of a record, and what could not be read of it."""

    cls: type[R]
    span: Span
    values: Mapping[str, Any]
    """Fields that were given and sound, by their names in Python."""
    spans: Mapping[str, Span]
    """Places of the values that were given, by their names in Python."""
    wrong: frozenset[str]
    """Fields that are missing or not sound, by their names in Python."""

    def record(self, **more: Any) -> R:
        """The record; `more` are fields that no file gives. What was wrong has its default."""
        place = {"span": self.span} if self.cls.placed else {}
        return self.cls(**{**self.values, **place, **more})


class Reader:
    """Reads records of one file."""

    def __init__(self, problems: Diagnostics, wording: Wording | None = None, context: Context | None = None) -> None:
        self.problems = problems
        self.wording = wording or Wording()
        self.context = context or Context()

    def read(self, cls: type[R], node: Node, where: str = "") -> Read[R] | None:
        """A record; None where the node is no map, which is told. `where` is the path to it in the file."""
        if not isinstance(node, MapNode):
            self._error(
                self.wording.bad_type, f"{cls.what} is {cls.written or 'a mapping of keys to values'}", node.span
            )
            return None
        return self.fill(cls, self.given(cls, node, cls.what), node.span, cls.what, where)

    def given(self, cls: type[Record], node: MapNode, what: str) -> dict[str, Node]:
        """The values of declared keys; the others are told."""
        known = cls.by_name()
        found: dict[str, Node] = {}
        for entry in node.entries:
            if entry.name in known:
                found[entry.name] = entry.value
            elif not self.wording.lenient:
                message, hint = self.wording.unknown(entry.name, what, known)
                self._error(self.wording.unknown_key, message, entry.key.span, hint)
        return found

    def fill(self, cls: type[R], given: Mapping[str, Node], at: Span, what: str, where: str = "") -> Read[R]:
        """A record of values by their keys; `at` is the place of what is missing."""
        values: dict[str, Any] = {}
        wrong: set[str] = set()
        if self.wording.lenient:
            given = {key: node for key, node in given.items() if not _is_null(node)}
        known = cls.by_name()
        for key, node in given.items():
            attribute = known[key]
            path = f"{where}.{key}" if where else key
            try:
                values[attribute.into] = self._field(node, attribute, path)
            except Wrong as e:
                self._tell(e, attribute, self.wording.subject(key, what, path), node)
                wrong.add(attribute.into)
            except Told:
                wrong.add(attribute.into)
        for attribute in known.values():
            if attribute.name not in given:
                self._absent(
                    attribute, at, what, f"{where}.{attribute.name}" if where else attribute.name, values, wrong
                )
        for either in cls.either:
            count = sum(key in given for key in either.keys)
            if count > 1 or (either.needed and not count):
                code = self.wording.bad_value if count else self.wording.missing_key
                self._error(code, either.message, at)
        spans = {known[key].into: node.span for key, node in given.items()}
        return Read(cls, at, values, spans, frozenset(wrong))

    def _absent(
        self, attribute: Attribute, at: Span, what: str, where: str, values: dict[str, Any], wrong: set[str]
    ) -> None:
        symbol = attribute.symbol
        stand_in = self.context.fallback(symbol) if symbol else None
        if stand_in is not None:
            try:
                values[attribute.into] = self._field(stand_in, attribute, where)
            except Wrong as e:
                message = f"model symbol '{symbol}' (field '{attribute.name}' of {what.partition(' ')[2]}) {e.message}"
                self._error(self.wording.bad_value, message, stand_in.span)
                wrong.add(attribute.into)
        elif attribute.required and attribute.facts.sentence:
            self._error(attribute.facts.code or self.wording.missing_key, attribute.facts.sentence, at)
            wrong.add(attribute.into)
        elif attribute.required:
            message, hint = self.wording.missing(attribute, what, where)
            self._error(self.wording.missing_key, message, at, hint)
            wrong.add(attribute.into)

    def _tell(self, e: Wrong, attribute: Attribute, subject: str, node: Node) -> None:
        facts, wording = attribute.facts, self.wording
        text = node.value if isinstance(node, Scalar) and attribute.spelling is not str else None
        hint = e.hint or (self.context.advice(text) if isinstance(text, str) else "")
        code = e.code or ((facts.code or wording.bad_value) if e.by_value else wording.bad_type)
        message = e.message if e.sentence else f"{subject} {e.message}"
        if e.by_value and not e.code and facts.sentence:
            message = facts.sentence
        self._error(code, message, node.span, hint)

    def _error(self, code: str, message: str, span: Span, hint: str = "") -> None:
        self.problems.error(self.wording.only or code, message, span, hint)

    def _field(self, node: Node, attribute: Attribute, where: str) -> Any:
        """The Python value of a field; raises Wrong, or Told."""
        facts = attribute.facts
        if facts.raw and isinstance(node, Scalar) and isinstance(node.value, str):
            return node.value
        if facts.alone and not isinstance(node, ListNode):
            node = ListNode((node,), node.span)
        try:
            value = self._typed(node, attribute.spelling, attribute, where)
            self._sized(value, facts)
            self._bounded(value, facts)
        except Wrong as e:
            if facts.called and not e.code and not e.sentence and not e.by_value:
                given = f", not {show(node)}" if isinstance(node, Scalar) else ""
                raise Wrong(f"must be {facts.called}{given}", e.hint) from None
            raise
        return value

    def _sized(self, value: Any, facts: Facts) -> None:
        """Refuse a text, a list or a map that is too short."""
        if facts.least and isinstance(value, (str, tuple, dict)) and len(cast("str", value)) < facts.least:
            what = "characters" if isinstance(value, str) else "items" if isinstance(value, tuple) else "entries"
            least = f"must have at least {facts.least} {what}" if facts.least > 1 else "must not be empty"
            if facts.noun:
                least = f"must have at least one {facts.noun}"
            raise Wrong(least, by_value=isinstance(value, dict))

    def _bounded(self, value: Any, facts: Facts) -> None:
        """Refuse a number, or a list with one, that is out of bounds."""
        for number in cast("tuple[Any, ...]", value if isinstance(value, tuple) else (value,)):
            if not isinstance(number, (int, float)) or isinstance(number, bool):
                continue
            least, most = facts.ge, facts.le
            if least is not None and most is not None and not least <= number <= most:
                kind = "a whole number" if isinstance(number, int) else "a number"
                raise Wrong(f"must be {kind} from {least} to {most}, not {number}")
            if least is not None and number < least:
                raise Wrong(f"must be at least {least}, not {number}")
            if facts.gt is not None and number <= facts.gt:
                raise Wrong(f"must be greater than {facts.gt}, not {number}")
            if most is not None and number > most:
                raise Wrong(f"must be at most {most}, not {number}")
            if isinstance(number, float):
                self.context.check(number)

    def _typed(self, node: Node, wanted: Any, attribute: Attribute, where: str) -> Any:
        if wanted is object:
            return plain(node)
        if isinstance(wanted, type) and issubclass(wanted, Own):
            return wanted.of(node)
        if isinstance(node, Scalar) and isinstance(node.value, str):
            resolved = self.context.resolve(node.value)
            if resolved is not node.value:
                node = node_of(resolved, node.span)
        origin = get_origin(wanted)
        if origin in (Union, types.UnionType):
            return self._union(node, get_args(wanted), attribute, where)
        if origin is Literal:
            return choice(node, wanted)
        if origin is tuple:
            return self._list(node, get_args(wanted)[0], attribute, where)
        if origin in MAPS:
            return self._map(node, get_args(wanted), attribute, where)
        if _is_record(wanted):
            return self._record(node, wanted, where)
        value = scalar(node, wanted, largest=attribute.facts.le)
        if attribute.facts.form is not None and wanted is str:
            return self._formed(cast("str", value), attribute.facts.form, node)
        return value

    def _formed(self, text: str, form: Form, node: Node) -> Any:
        value = form.parse(text, self.context)
        if value is not None:
            return value
        if form.is_name:
            raise Wrong(f"'{text}' cannot be {form.called}", form.hint, by_value=True, sentence=True)
        raise Wrong(hint=form.hint, wanted=form.called, node=node, by_value=True)

    def _record(self, node: Node, wanted: type[Record], where: str) -> Record:
        if not isinstance(node, MapNode):
            keys = [f"`{a.name}`" for a in wanted.attributes()]
            named = wanted.written or f"a mapping with {' and '.join(filter(None, (', '.join(keys[:-1]), keys[-1])))}"
            raise Wrong(wanted=named, node=node)
        read = self.read(wanted, node, where)
        if read is None or read.wrong:
            raise Told
        return read.record()

    def _list(self, node: Node, inner: Any, attribute: Attribute, where: str) -> tuple[Any, ...]:
        if not isinstance(node, ListNode):
            raise Wrong(wanted="a list", node=node)
        if not self._each(attribute, inner):
            return tuple(self._typed(item, inner, attribute, f"{where}[{i}]") for i, item in enumerate(node.items))
        numbered = [(str(i), f"{where}[{i}]", item) for i, item in enumerate(node.items)]
        return tuple(self._entries(numbered, inner, attribute).values())

    def _map(self, node: Node, arguments: tuple[Any, ...], attribute: Attribute, where: str) -> dict[str, Any]:
        if not isinstance(node, MapNode):
            raise Wrong(wanted="a mapping", node=node)
        key_type, inner = arguments
        sound = [e for e in node.entries if self._key(e.key, key_type, attribute)]
        if not self._each(attribute, inner):
            found = {e.name: self._typed(e.value, inner, attribute, f"{where}.{e.name}") for e in sound}
        else:
            found = self._entries([(e.name, f"{where}.{e.name}", e.value) for e in sound], inner, attribute)
        if len(sound) < len(node.entries):
            raise Told
        return found

    def _each(self, attribute: Attribute, inner: Any) -> bool:
        """Whether entries of a list or a map have errors of their own."""
        return bool(attribute.facts.each) or self.wording.lenient or _is_record(inner)

    def _key(self, key: Scalar, key_type: Any, attribute: Attribute) -> bool:
        """Whether a key of a map is one that it can have."""
        name, form = str(key.value), attribute.facts.keys
        if get_origin(key_type) is Literal and name not in get_args(key_type):
            noun, choices = attribute.facts.noun or "key", get_args(key_type)
            hint = nearest(name, choices) or f"{noun}s: {', '.join(choices)}"
            self._error(self.wording.unknown_key, f"there is no {noun} '{name}'", key.span, hint)
            return False
        if form is not None and form.parse(name, self.context) is None:
            self._error(self.wording.bad_value, f"'{name}' cannot be {form.called}", key.span, form.hint)
            return False
        return True

    def _entries(self, entries: Sequence[tuple[str, str, Node]], inner: Any, attribute: Attribute) -> dict[str, Any]:
        """Values of a list or a map by key or number, each with errors of its own. Entries: key, path, value."""
        found: dict[str, Any] = {}
        sound = True
        for key, where, node in entries:
            try:
                found[key] = self._typed(node, inner, attribute, where)
                self._bounded(found[key], attribute.facts)
            except Told:
                sound = False
            except Wrong as e:
                sound = False
                item = attribute.facts.item
                if item and not e.code and not e.sentence:
                    given = f", not {show(node)}" if isinstance(node, Scalar) else ""
                    e = Wrong(f"must be {item}{given}", e.hint, by_value=e.by_value)
                each = attribute.facts.each.replace("{key}", key)
                self._tell(e, attribute, each or self.wording.subject(where, "", ""), node)
        if not sound:
            raise Told
        return found

    def _union(self, node: Node, choices: tuple[Any, ...], attribute: Attribute, where: str) -> Any:
        if _is_null(node) and type(None) in choices:
            return None
        choices = tuple(c for c in choices if c is not type(None))
        fitting = [c for c in choices if _fits(c, node)] if not isinstance(node, Scalar) else list(choices)
        if len(fitting) == 1:
            return self._typed(node, fitting[0], attribute, where)
        wrong: list[Wrong] = []
        for one in choices:
            try:
                return self._typed(node, one, attribute, where)
            except Wrong as e:
                wrong.append(e)
        by_value, hint = any(e.by_value for e in wrong), next((e.hint for e in wrong if e.hint), "")
        if all(e.wanted for e in wrong):
            raise Wrong(hint=hint, wanted=" or ".join(e.wanted for e in wrong), node=node, by_value=by_value)
        raise Wrong(" or ".join(e.message for e in wrong), hint, by_value=by_value)


def _is_null(node: Node) -> bool:
    return isinstance(node, Scalar) and node.value is None


def _fits(wanted: Any, node: Node) -> bool:
    """Whether a list or a map may be of a type, as far as its kind tells."""
    if wanted is object:
        return True
    if isinstance(wanted, type) and issubclass(wanted, Own):
        return isinstance(node, wanted.takes)
    if isinstance(node, ListNode):
        return get_origin(wanted) is tuple
    return get_origin(wanted) in MAPS or _is_record(wanted)


def _is_record(wanted: Any) -> TypeGuard[type[Record]]:
    return isinstance(wanted, type) and issubclass(wanted, Record)
