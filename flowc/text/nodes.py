"""What a spec's text becomes: values that know their place.

    heads: [9, 3]        MapNode(entries=(Entry(key=Scalar("heads"), value=ListNode(items=(Scalar(9), Scalar(3)))),))

An aliased node stands in several places of the tree as one object, whose span is that of its anchor.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from flowc.errors import Span


@dataclass(frozen=True, slots=True)
class Scalar:
    """One value. `quoted` is true for quoted and block texts, which are never read as numbers."""

    value: str | int | float | bool | None
    span: Span
    quoted: bool


@dataclass(frozen=True, slots=True)
class ListNode:
    """Values in order."""

    items: tuple[Node, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class Entry:
    """A key, whose value is a text, and what it stands for."""

    key: Scalar
    value: Node

    @property
    def name(self) -> str:
        """The key's text."""
        assert isinstance(self.key.value, str)
        return self.key.value


@dataclass(frozen=True, slots=True)
class MapNode:
    """Entries in the order of the text, no key twice."""

    entries: tuple[Entry, ...]
    span: Span
    _by_name: dict[str, Entry] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_by_name", {entry.name: entry for entry in self.entries})

    def get(self, key: str) -> Node | None:
        """The value of a key, if the map has it."""
        entry = self._by_name.get(key)
        return entry.value if entry else None

    def entry(self, key: str) -> Entry | None:
        """The entry of a key, if the map has it."""
        return self._by_name.get(key)

    def keys(self) -> tuple[str, ...]:
        """The keys in order."""
        return tuple(self._by_name)


Node: TypeAlias = Scalar | ListNode | MapNode


def plain(node: Node) -> object:
    """The node's Python value: None, bool, int, float, str, list or dict."""
    match node:
        case Scalar():
            return node.value
        case ListNode():
            return [plain(item) for item in node.items]
        case MapNode():
            return {entry.name: plain(entry.value) for entry in node.entries}
