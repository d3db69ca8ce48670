"""What a graph's ports are called, and which of them carry a layer's state from call to call."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

PAST = "past_key_values."
PRESENT = "present."


def past_name(layer: int, slot: str) -> str:
    """The input that takes a layer's state."""
    return f"{PAST}{layer}.{slot}"


def present_name(layer: int, slot: str) -> str:
    """The output that hands a layer's state on."""
    return f"{PRESENT}{layer}.{slot}"


@dataclass(frozen=True, slots=True)
class CacheSlot:
    """One tensor of a layer's state, under the names that its ports have in a graph.

    `key` and `value` [batch, kv_heads, columns, head_dim] grow with the tokens; `conv_state` [batch, channels,
    kernel - 1] and `recurrent_state` [batch, heads, key_dim, value_dim] do not.
    """

    layer: int
    slot: str
    past: str | None = None
    """The graph input; None in a graph that takes no past."""
    present: str | None = None
    """The graph output; None where a graph reads a state without handing it on."""

    @property
    def wide(self) -> bool:
        """Whether it stays float32 in a graph of half precision: a recurrent state gathers every step's rounding."""
        return self.slot == "recurrent_state"


_PORT = re.compile(rf"({re.escape(PAST)}|{re.escape(PRESENT)})(\d+)\.(\w+)")


def slots_of(inputs: Iterable[str], outputs: Iterable[str], public: Callable[[str], str]) -> tuple[CacheSlot, ...]:
    """The states that travel through ports of these names; `public` gives the names that they have in the graph."""
    found: dict[tuple[int, str], dict[str, str]] = {}
    for name in (*inputs, *outputs):
        if match := _PORT.fullmatch(name):
            which = "past" if match[1] == PAST else "present"
            found.setdefault((int(match[2]), match[3]), {})[which] = public(name)
    return tuple(CacheSlot(layer, slot, **ports) for (layer, slot), ports in found.items())
