"""What a graph's ports are called, and which of them carry a layer's state from call to call.

The two prefixes stand here alone; rooms ask a graph for its `caches`, or, of a file, `slots_of` its ports.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

_PAST = "past_key_values."
_PRESENT = "present."

SPELT = f"{_PAST}* and {_PRESENT}*"
"""How messages call the ports of caches."""


def past_name(layer: int, slot: str) -> str:
    """The input that takes a layer's state."""
    return f"{_PAST}{layer}.{slot}"


def present_name(layer: int, slot: str) -> str:
    """The output that hands a layer's state on."""
    return f"{_PRESENT}{layer}.{slot}"


def takes_state(name: str) -> bool:
    """Whether an input is called as one that takes a layer's state."""
    return name.startswith(_PAST)


@dataclass(frozen=True, slots=True)
class CacheSlot:
    """One tensor of a layer's state, under the names that its ports have in a graph.

    `key` and `value` [batch, kv_heads, columns, head_dim] have a column for each token; `conv_state` [batch, channels,
    kernel - 1] and `recurrent_state` [batch, heads, key_dim, value_dim] do not.
    """

    layer: int
    slot: str
    past: str | None = None
    """The graph input; None in a graph that takes no past."""
    present: str | None = None
    """The graph output; None where a graph reads a state without handing it on."""

    @property
    def owner(self) -> str:
        """The component that makes the state, in a model of several; else empty."""
        return self.slot.rpartition(".")[0]

    @property
    def wide(self) -> bool:
        """Whether it stays float32 in a graph of half precision: a recurrent state gathers every step's rounding."""
        return self.slot.rpartition(".")[2] == "recurrent_state"

    @property
    def has_columns(self) -> bool:
        """Whether it holds keys or values, a column for each token."""
        return self.slot.rpartition(".")[2] in ("key", "value")


_PORT = re.compile(rf"({re.escape(_PAST)}|{re.escape(_PRESENT)})(\d+)\.((?:\w+\.)?\w+)")


def slots_of(
    inputs: Iterable[str], outputs: Iterable[str], public: Callable[[str], str] = str
) -> tuple[CacheSlot, ...]:
    """The states that travel through ports of these names; `public` gives the names that they have in the graph."""
    found: dict[tuple[int, str], dict[str, str]] = {}
    for name in (*inputs, *outputs):
        if match := _PORT.fullmatch(name):
            which = "past" if match[1] == _PAST else "present"
            found.setdefault((int(match[2]), match[3]), {})[which] = public(name)
    return tuple(CacheSlot(layer, slot, **ports) for (layer, slot), ports in found.items())
