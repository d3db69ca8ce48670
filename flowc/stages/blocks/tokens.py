"""What stages ask of the tokens that a flow starts from: that they are there, whole, and where each one stands."""

from __future__ import annotations

import re

from flowc.errors import InternalError, nearest
from flowc.frontend.builder import Builder
from flowc.frontend.stage import Stage
from flowc.frontend.state import Rope
from flowc.ir.core.positions import Positions
from flowc.ir.core.rope import RopeAngles
from flowc.ir.graph import Value


def require_rank(b: Builder, x: Value, rank: int) -> None:
    """Raise Failed unless a value has so many dimensions; for stages that take a shape apart."""
    if len(x.shape) != rank:
        raise b.fail("bad-shape", f"{b.what} takes a value of {rank} dimensions, not {x.type}")


def require_tokens(b: Builder, x: Value) -> None:
    """Raise Failed unless a value has a row per new token, as what a cache keeps must."""
    tokens = b.tokens()
    if x.shape[:2] != tokens.shape[:2]:
        message = f"{b.what} keeps a cache of every new token, and gets {x.type} for {tokens.type}"
        raise b.fail("bad-shape", message, hint="`gather_last_token` comes after the last such stage")


def require_whole(b: Builder) -> None:
    """Raise Failed in a graph with a past, whose new tokens are not the whole sequence."""
    if b.decoding:
        message = f"{b.what} looks at the whole sequence; the '{b.phase}' graph gets its newest tokens"
        raise b.fail("wrong-phase", message, hint="`kind: encoder`, or a flow of its own under `prefill:`")


def require_sequence(b: Builder) -> Value:
    """The tokens that the flow starts from; raises Failed where those are images, which have no sequence yet."""
    tokens = b.tokens()
    if tokens.type.rank > 3:
        raise b.fail("bad-shape", f"{b.what} counts tokens, and the flow starts from {tokens.type}")
    return tokens


def position_ids(b: Builder) -> Value:
    """Positions of the new tokens, int64 [batch, sequence]; made once per graph."""
    if b.state.position_ids is None:
        past = b.past_columns
        mask = b.state.token_mask or b.attention_mask()
        if mask is None and past is None and b.decoding:
            message = f"{b.what} asks for positions before any attention has a cache to count on from"
            raise b.fail("undefined-slot", message, hint="build it without --assume no-padding")
        counted_from = None if mask is not None else past
        b.state.position_ids = b.op(Positions(), require_sequence(b), mask, counted_from, name="position_ids")
    return b.state.position_ids


def add_rope(b: Builder, name: str, rope: Rope) -> None:
    """Keep a rope under a name that attention stages use."""
    if name in b.state.ropes:
        raise b.fail("duplicate-rope", f"the rope '{name}' is made a second time", hint="give it another `name`")
    b.state.ropes[name] = rope


def rope_angles(b: Builder, name: str, at: str = "rope") -> tuple[Value, Value]:
    """Cosine and sine of a named rope at the new tokens' positions; made once per graph."""
    rope = b.state.ropes.get(name)
    if rope is None:
        hint = nearest(name, b.state.ropes) or "a `rope_tables` stage must come first"
        message = f"{b.what} uses the rope '{name}', which no stage has made"
        raise b.fail("undefined-rope", message, b.place(at), hint)
    if rope.angles is not None:
        return rope.angles
    if name not in b.state.angles:
        if rope.facts is None:
            raise InternalError(f"the rope '{name}' has neither facts nor angles")
        cos, sin = b.emit(RopeAngles(rope.facts), position_ids(b), name=f"angles_{name}")
        b.state.angles[name] = (cos, sin)
    return b.state.angles[name]


def layer_index(b: Builder, stage: Stage, name: str) -> int:
    """A layer's index in the model: the stage's `layer`, or the last whole number in a weight name."""
    given = getattr(stage, "layer", None)
    if given is not None:
        return given
    numbers = re.findall(r"(?<![\w])\d+(?![\w])", name)
    if not numbers:
        raise b.fail("missing-field", f"{b.what} needs `layer:`, since '{name}' holds no layer number")
    return int(numbers[-1])
