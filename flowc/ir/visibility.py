"""How far a query sees: the one fact that attention and its masks share.

Visibility(causal=True)                      every token up to itself                       (Llama)
Visibility.before(4096)                      causal, the 4096 newest up to itself           (Mistral)
Visibility.around(64)                        at most 64 tokens away on both sides           (ModernBERT)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True, slots=True, repr=False)
class Visibility:
    """Which tokens a query may see, apart from padding.

    `left` and `right` are how many valid tokens before and after itself a query sees (the field's window sizes: a
    sliding window of w is `left = w - 1`, for it counts the query too); None is without bound. Padding in between
    does not count, so it shortens no window. `causal` is about columns: none later than the query's own.
    """

    causal: bool = False
    left: int | None = None
    right: int | None = None

    @classmethod
    def before(cls, window: int | None) -> Visibility:
        """Causal, and of those tokens the `window` newest, the query's own included; all of them for None."""
        return cls(causal=True, left=None if window is None else window - 1)

    @classmethod
    def around(cls, reach: int | None) -> Visibility:
        """Tokens at most `reach` away on both sides; all of them for None."""
        return cls(left=reach, right=reach)

    @property
    def unlimited(self) -> bool:
        """Whether every token is seen."""
        return not self.causal and self.left is None and self.right is None

    @property
    def window(self) -> int | None:
        """How many tokens up to itself a query sees, its own included; None without bound."""
        return None if self.left is None else self.left + 1

    @property
    def span(self) -> int | None:
        """How many tokens lie within the bounds on both sides, the query's own included; None without any bound."""
        if self.left is None and (self.right is None or self.causal):
            return None
        return (self.left or 0) + 1 + (0 if self.causal else self.right or 0)

    def within(self, tokens: int | None) -> Visibility:
        """The same among at most so many tokens (None: any number): a bound that none of them lies beyond is none."""

        def bound(side: int | None) -> int | None:
            return side if side is not None and (tokens is None or side < tokens - 1) else None

        return Visibility(self.causal, bound(self.left), bound(self.right))

    def allowed(self, queries: int, total: int, mask: Array | None) -> Array:
        """Which keys each query may see: bool [batch or 1, queries, total].

        The queries are the last columns. mask int64 [batch, total]: a masked key is seen by nobody.
        """
        columns = np.arange(total)
        valid = np.ones((1, total), bool) if mask is None else mask != 0
        places = columns[None] if mask is None else np.cumsum(valid, axis=1) - 1
        distance = places[:, total - queries :, None] - places[:, None, :]
        keep = np.broadcast_to(valid[:, None, :], (len(valid), queries, total)).copy()
        if self.causal:
            keep &= columns[None, None, :] <= columns[None, total - queries :, None]
        if self.left is not None:
            keep &= distance <= self.left
        if self.right is not None:
            keep &= -distance <= self.right
        return keep

    def __str__(self) -> str:
        found = ["causal"] if self.causal else []
        if self.left is not None and self.left == self.right:
            found.append(f"{self.left} on both sides")
        else:
            found += [f"window {self.window}"] if self.left is not None else []
            found += [f"{self.right} ahead"] if self.right is not None else []
        return ", ".join(found) or "everything"

    def __repr__(self) -> str:
        return f"<{self}>"


EVERYTHING = Visibility()
CAUSAL = Visibility(causal=True)
