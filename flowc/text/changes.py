"""Two sequences side by side, as a diff shows them: what is equal, what changed, what is on one side only.

    aligned([A, B, C], [A, C'], alike)   ->   [(A, A), (B, None), (C, C')]

and two nested values with each change once, at its place:

    changes({"flow": [a, b, c]}, {"flow": [a, c]})   ->   [Change("flow[1]", b, ABSENT)]
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, Final, TypeVar, cast

T = TypeVar("T")

Alike = Callable[[T, T], float]
"""How much of two different items is the same, 0 to 1; less than 0 for items that are no versions of one another."""

MOST_CELLS = 1_000_000
"""Pairs of items up to which the best alignment is sought: some seconds. Beyond it, items pair up by their place."""


class _Absent:
    """What stands for a value that one side does not have."""

    def __repr__(self) -> str:
        return "–"


ABSENT: Final = _Absent()


@dataclass(frozen=True, slots=True)
class Change:
    """A value that is not the same on both sides, with its place as in `flow[2].repeat.count`."""

    at: str
    a: object
    b: object


def aligned(a: Sequence[T], b: Sequence[T], alike: Alike[T]) -> list[tuple[T | None, T | None]]:
    """Pairs of items in order, None where a side has none; equal items are paired wherever the order allows."""
    start = 0
    while start < min(len(a), len(b)) and a[start] == b[start]:
        start += 1
    end = 0
    while end < min(len(a), len(b)) - start and a[-1 - end] == b[-1 - end]:
        end += 1
    before = [*zip(a[:start], b[:start], strict=True)]
    after = [*zip(a[len(a) - end :], b[len(b) - end :], strict=True)]
    mine, theirs = a[start : len(a) - end], b[start : len(b) - end]
    if len(mine) * len(theirs) > MOST_CELLS:
        return [*before, *zip_longest(mine, theirs), *after]
    return [*before, *_best(mine, theirs, alike), *after]


def _best(a: Sequence[T], b: Sequence[T], alike: Alike[T]) -> list[tuple[T | None, T | None]]:
    """The cheapest alignment: an item on one side costs 1, a changed one from 1 to 2, an equal one nothing."""
    paired = [[_cost(x, y, alike) for y in b] for x in a]
    least = [[0.0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i in range(len(a), -1, -1):
        for j in range(len(b), -1, -1):
            ways: list[float] = []
            if i < len(a) and j < len(b):
                ways.append(paired[i][j] + least[i + 1][j + 1])
            if i < len(a):
                ways.append(1 + least[i + 1][j])
            if j < len(b):
                ways.append(1 + least[i][j + 1])
            least[i][j] = min(ways, default=0.0)
    found: list[tuple[T | None, T | None]] = []
    i = j = 0
    while i < len(a) or j < len(b):
        if i < len(a) and j < len(b) and least[i][j] == paired[i][j] + least[i + 1][j + 1]:
            found.append((a[i], b[j]))
            i, j = i + 1, j + 1
        elif i < len(a) and least[i][j] == 1 + least[i + 1][j]:
            found.append((a[i], None))
            i += 1
        else:
            found.append((None, b[j]))
            j += 1
    return found


def _cost(x: T, y: T, alike: Alike[T]) -> float:
    if x == y:
        return 0.0
    share = alike(x, y)
    return float("inf") if share < 0 else 2.0 - share


def changes(a: object, b: object, at: str = "") -> Iterator[Change]:
    """Where two plain values (maps, lists, scalars) differ; 1 and 1.0 and True are not the same."""
    whole, equal = Change(at, a, b), repr(a) == repr(b)
    if isinstance(a, dict) and isinstance(b, dict):
        x, y = cast("dict[str, object]", a), cast("dict[str, object]", b)
        for key in dict.fromkeys([*x, *y]):
            yield from changes(x.get(key, ABSENT), y.get(key, ABSENT), f"{at}.{key}" if at else key)
    elif isinstance(a, list) and isinstance(b, list):
        for x, y in aligned(_items(cast("list[object]", a)), _items(cast("list[object]", b)), _alike):
            place = (x or y or _Item(0, None)).index
            yield from changes(x.value if x else ABSENT, y.value if y else ABSENT, f"{at}[{place}]")
    elif not equal:
        yield whole


class _Item:
    """An entry of a list: compared by its value, known by its place."""

    __slots__ = ("facts", "index", "kind", "text", "value")

    def __init__(self, index: int, value: object) -> None:
        self.index, self.value = index, value
        self.text = repr(value)
        self.facts = frozenset(_leaves(value))
        self.kind = next(iter(cast("dict[str, object]", value)), None) if isinstance(value, dict) else value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Item) and self.text == other.text

    def __hash__(self) -> int:
        return hash(self.text)


def value_text(value: object) -> str:
    """One side of a change as JSON on one line; a dash for what is not there."""
    return repr(ABSENT) if value is ABSENT else json.dumps(value, ensure_ascii=False)


def _items(values: list[object]) -> list[_Item]:
    return [_Item(index, value) for index, value in enumerate(values)]


def _alike(x: _Item, y: _Item) -> float:
    """Entries of one kind are versions of one another: maps with the same first key, lists, plain values."""
    maps = [isinstance(i.value, dict) for i in (x, y)]
    if any(maps) and x.kind != y.kind:
        return -1.0
    if not any(maps) and isinstance(x.value, list) != isinstance(y.value, list):
        return -1.0
    return len(x.facts & y.facts) / (len(x.facts | y.facts) + 1)


def _leaves(value: Any, at: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for key, inner in cast("dict[str, object]", value).items():
            yield from _leaves(inner, f"{at}.{key}")
    elif isinstance(value, list):
        for inner in cast("list[object]", value):
            yield from _leaves(inner, f"{at}[]")
    else:
        yield at, repr(value)
