"""What the values of a stage may refer to: `$name`, `$name[i]`, and `{i}` inside a text."""

from __future__ import annotations

import re
from collections.abc import Mapping

from flowc.errors import nearest
from flowc.frontend.usage import Usage
from flowc.records.declare import Context
from flowc.records.values import Wrong, node_of
from flowc.spec.spec import Spec
from flowc.text.nodes import Node

_SMALLEST, _LARGEST = 2.0**-126, (2 - 2.0**-23) * 2.0**127
"""The smallest and the largest normal number of float32."""
_ARITHMETIC = re.compile(r"[\w\]})]\s*(\*\*?|//?|[-+%])\s*[\w${(]")


class References(Context):
    """Names that values of a stage may refer to: model symbols, and the indices of its `repeat`s."""

    def __init__(self, spec: Spec, usage: Usage, indices: Mapping[str, int]) -> None:
        self.spec = spec
        self.usage = usage
        self.indices = indices

    def symbol(self, name: str) -> object:
        """The value of an entry of `model:`, which counts as used; None where there is none."""
        self.usage.symbols.add(name)
        return self.spec.symbol(name)

    def look_up(self, name: str, form: str = "${}") -> object:
        """The value of an index or a symbol, which a text writes in such a form; raises Wrong."""
        if name in self.indices:
            return self.indices[name]
        if name in self.spec.model:
            return self.symbol(name)
        known = [form.replace("{}", n) for n in self.indices]
        inside = (
            f"indices here: {', '.join(known)}" if known else "the stage stands in no `repeat`, so there is no index"
        )
        hint = nearest(name, [*self.indices, *self.spec.model]) or f"{inside}; or state it under `model:`"
        raise Wrong(f"refers to '{form.replace('{}', name)}', which is neither a model symbol nor an index", hint)

    def resolve(self, text: str) -> object:
        """The value that a text stands for: `$name`, `$name[i]`, or the text with its `{i}` filled in."""
        match = re.fullmatch(r"\$([A-Za-z_]\w*)(?:\[(\w+)\])?", text)
        if match is None:
            return self._filled_in(text)
        value = self.look_up(match[1])
        if match[2] is None:
            return value
        index = int(match[2]) if match[2].isdecimal() else self.look_up(match[2])
        if not isinstance(value, list):
            raise Wrong(f"takes an entry of '${match[1]}', which is not a list")
        if not isinstance(index, int) or not 0 <= index < len(value):  # pyright: ignore[reportUnknownArgumentType]
            raise Wrong(f"takes entry {index} of '${match[1]}', which has {len(value)} entries")  # pyright: ignore[reportUnknownArgumentType]
        return value[index]  # pyright: ignore[reportUnknownVariableType]

    def _filled_in(self, text: str) -> str:
        """The text with the value of `name` for every `{name}`."""
        left = re.sub(r"\{[A-Za-z_]\w*\}", "", text)
        if mark := re.search(r"[${}]", left):
            hint = self.advice(text) or "`$name` or `$name[i]` stands alone; inside a text, write `{name}`"
            raise Wrong(f"has a '{mark[0]}' that belongs to no reference", hint)

        def value(match: re.Match[str]) -> str:
            found = self.look_up(match[1], "{{}}")
            if isinstance(found, bool) or not isinstance(found, (int, str)):
                raise Wrong(f"fills in '{match[1]}', which is neither a whole number nor a text")
            return str(found)

        return re.sub(r"\{([A-Za-z_]\w*)\}", value, text)

    def fallback(self, symbol: str) -> Node | None:
        """The entry of `model:` that stands in for a field; it counts as used, whether it is there or not."""
        value = self.symbol(symbol)
        return None if value is None else node_of(value, self.spec.model[symbol].span)

    def check(self, number: float) -> None:
        """Refuse what float32 does not hold, in which graphs compute."""
        if not (_SMALLEST <= abs(number) <= _LARGEST or number == 0.0):
            raise Wrong(f"must be a number that float32 holds, not {number}")

    def advice(self, text: str) -> str:
        """What to do for a text that looks as if it should be computed."""
        computes = "specs do not compute: state the number itself, or as an entry of `model:`"
        return computes if _ARITHMETIC.search(text) else ""
