from __future__ import annotations

from typing import Literal

import numpy as np

from flowc.frontend.builder import Builder
from flowc.frontend.stage import Stage, attr
from flowc.frontend.state import Rope
from flowc.ir.core.rope import RopeAngles
from flowc.ir.graph import Value
from flowc.ir.rope import MAX_DIM, RopeFacts
from flowc.ir.weights.expressions import Constant
from flowc.stages.blocks.tokens import add_rope


class RopeTables(Stage, name="rope_tables"):
    """Names a rotary position embedding for the attention stages that follow (Su et al. 2021).

    `linear`, `llama3`, `yarn` and `longrope` scale it as HuggingFace does; every number is stated here. `dynamic` is
    accepted while the context stays within `original_length`, where it equals `default`.
    """

    reads = ()
    writes = ("rope",)
    reference = "*RotaryEmbedding, modeling_rope_utils.ROPE_INIT_FUNCTIONS"
    example = "rope_tables: {theta: 10000, head_dim: 64}"
    theta: float = attr(doc="Base of the frequencies.", gt=0)
    head_dim: int = attr(doc="Channels of a head.", symbol="head_dim", gt=0)
    rotary_dim: int | None = attr(
        doc="Channels that rotate, the first ones of a head; all by default. An odd number turns one more, as in HuggingFace.",
        default=None,
        gt=0,
    )
    name: str = attr(doc="Name that attention stages use.", default="rope")
    type: Literal["default", "linear", "llama3", "yarn", "longrope", "dynamic"] = attr(
        doc="How it scales.", default="default"
    )
    factor: float = attr(doc="Scaling factor of linear, llama3 and yarn.", default=1.0, gt=0)
    low_freq_factor: float = attr(
        doc="llama3: longest unscaled wavelength is original_length / this.", default=1.0, gt=0
    )
    high_freq_factor: float = attr(doc="llama3: shorter wavelengths stay as they are.", default=4.0, gt=0)
    original_length: int = attr(doc="Context length before scaling, in tokens.", default=0, ge=0)
    beta_fast: float = attr(doc="yarn: rotations above which nothing is interpolated.", default=32.0, gt=0)
    beta_slow: float = attr(doc="yarn: rotations below which all is interpolated.", default=1.0, gt=0)
    truncate: bool = attr(doc="yarn: whether the ramp's ends are whole channels.", default=True)
    attention_factor: float = attr(doc="yarn, longrope: factor of cosine and sine.", default=1.0, gt=0)
    short_factor: tuple[float, ...] = attr(doc="longrope: divisors up to original_length.", default=())
    long_factor: tuple[float, ...] = attr(doc="longrope: divisors beyond it.", default=())

    def facts(self, b: Builder) -> RopeFacts:
        """The facts in the compiler's terms; reports what does not fit together."""
        dim = self.rotary_dim or self.head_dim
        if dim + dim % 2 > min(self.head_dim, MAX_DIM):
            most = f"at most head_dim = {self.head_dim}" if self.head_dim <= MAX_DIM else f"at most {MAX_DIM}"
            raise b.fail("bad-value", f"a rope turns an even number of {most} channels, not {dim}")
        if dim % 2 and self.type in ("yarn", "longrope"):
            raise b.fail("bad-value", f"a rope of type {self.type} turns an even number of channels, not {dim}")
        if self.type in ("llama3", "yarn", "longrope", "dynamic") and self.original_length == 0:
            raise b.fail("missing-field", f"a rope of type {self.type} needs `original_length`")
        if self.type == "longrope":
            for name, factors in (("short_factor", self.short_factor), ("long_factor", self.long_factor)):
                if len(factors) != dim // 2:
                    raise b.fail(
                        "bad-value", f"`{name}` needs {dim // 2} numbers, one per pair of channels, not {len(factors)}"
                    )
        kind = "default" if self.type == "dynamic" else self.type
        if self.type == "dynamic":
            self._within(b)
        facts = RopeFacts(
            self.theta, dim, kind, self.factor, self.low_freq_factor, self.high_freq_factor, self.original_length,
            self.beta_fast, self.beta_slow, self.truncate, self.attention_factor, self.short_factor, self.long_factor,
        )  # fmt: skip
        if not facts.sound():
            raise b.fail("bad-value", f"these numbers give a rope of type {self.type} no finite frequencies")
        return facts

    def _within(self, b: Builder) -> None:
        context = b.options.context or b.spec.integer("context_length")
        if context is None or context > self.original_length:
            raise b.fail(
                "dynamic-rope", f"a dynamic rope is exact only within its original length {self.original_length}, "
                f"the context asked for is {context if context is not None else 'not known'}",
                hint=f"build with --context {self.original_length} or less",
            )  # fmt: skip

    def angles(self, b: Builder) -> tuple[Value, Value] | None:
        """Angles that are fixed; by default they follow the tokens' positions."""
        return None

    def expand(self, b: Builder, x: Value) -> Value:
        rope = Rope(self.facts(b), self.angles(b), head_dim=self.head_dim)
        add_rope(b, self.name, rope)
        b.facts.setdefault("ropes", {})[self.name] = rope.facts
        return x


class DecodeRopeParams(RopeTables, name="decode_rope_params"):
    """The rope of a decode flow spelt out by hand; like `rope_tables`, and `position` may fix one position for good."""

    example = "decode_rope_params: {theta: 10000, head_dim: 64}"
    position: int | None = attr(
        doc="The one position that the graph decodes; from the mask by default.", default=None, ge=0
    )

    def angles(self, b: Builder) -> tuple[Value, Value] | None:
        if self.position is None:
            return None
        if b.phase.tokens != "one":
            raise b.fail("wrong-phase", "a fixed `position` makes sense in a decode graph alone")
        at = b.constant(Constant(np.full((1, 1), self.position, np.int64), "position"))
        cos, sin = b.emit(RopeAngles(self.facts(b)), at, name=f"angles_{self.name}")
        return cos, sin

    def expand(self, b: Builder, x: Value) -> Value:
        if not b.decoding:
            raise b.fail("wrong-phase", f"stage 'decode_rope_params' belongs in a decode flow, not in '{b.phase}'")
        return super().expand(b, x)
