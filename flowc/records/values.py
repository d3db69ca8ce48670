"""Scalars of a node tree as Python values, and what is wrong with those that do not fit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, cast, get_args

from flowc.errors import Span, nearest
from flowc.text.nodes import Entry, ListNode, MapNode, Node, Scalar, plain

EXACT = 2**53
"""Whole numbers below it are the same in every reader of JSON; a field that takes larger ones says `le`."""

TYPE_NAMES: Mapping[Any, str] = {int: "a whole number", float: "a number", bool: "true or false", str: "a text",
                                 type(None): "null"}  # fmt: skip


class Wrong(Exception):
    """A value that does not fit. The message goes on where an error's subject ends: `field 'x' of stage 'y' ...`.

    `wanted` is what it must be, where that is all that is wrong; `by_value` says that another value of the type would
    do, `sentence` that the message needs no subject.
    """

    def __init__(
        self, message: str = "", hint: str = "", *, wanted: str = "", node: Node | None = None, by_value: bool = False,
        code: str = "", sentence: bool = False,
    ) -> None:  # fmt: skip
        if wanted and node is not None:
            message = f"must be {wanted}, not {show(node)}"
        super().__init__(message)
        self.message, self.hint, self.wanted, self.by_value = message, hint, wanted, by_value
        self.code, self.sentence = code, sentence


class Told(Exception):
    """A value that does not fit, of which everything has been said."""


def node_of(value: object, span: Span) -> Node:
    """The tree of plain values, all of it at one place; keys of maps are texts."""
    if isinstance(value, list):
        return ListNode(tuple(node_of(v, span) for v in cast("list[object]", value)), span)
    if isinstance(value, dict):
        entries = cast("dict[str, object]", value).items()
        return MapNode(tuple(Entry(Scalar(k, span, True), node_of(v, span)) for k, v in entries), span)
    return Scalar(cast("Any", value), span, quoted=True)


def show(node: Node) -> str:
    """A value as messages quote it."""
    if not isinstance(node, Scalar):
        return "a mapping" if isinstance(node, MapNode) else "a list"
    text = repr(plain(node))
    return text if len(text) <= 60 else text[:57] + "..."


def scalar(node: Node, wanted: Any, *, largest: float | None = None) -> Any:
    """The value of a node as int, float, bool, str or None; raises Wrong. `largest` is a bound told elsewhere."""
    if not isinstance(node, Scalar):
        raise Wrong(wanted=TYPE_NAMES.get(wanted, "a value"), node=node)
    value = node.value
    if wanted is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise Wrong(wanted="a finite number", node=node)
        return number
    if wanted is int and isinstance(value, int) and not isinstance(value, bool):
        if largest is None and abs(value) >= EXACT:
            raise Wrong(wanted="a whole number below 2^53", node=node)
        return value
    if (wanted is bool and isinstance(value, bool)) or (wanted is str and isinstance(value, str)):
        return value
    if wanted is type(None) and value is None:
        return None
    raise Wrong(wanted=TYPE_NAMES.get(wanted, str(wanted)), node=node)


def choice(node: Node, wanted: Any) -> Any:
    """The value of a node that is one of a Literal's; raises Wrong."""
    choices: tuple[Any, ...] = get_args(wanted)
    value = node.value if isinstance(node, Scalar) else None
    if any(value == c and type(value) is type(c) for c in choices):
        return value
    hint = nearest(value, [str(c) for c in choices]) if isinstance(value, str) else ""
    named = "one of " * (len(choices) > 1) + ", ".join(map(str, choices))
    raise Wrong(hint=hint, wanted=named, node=node, by_value=True)
