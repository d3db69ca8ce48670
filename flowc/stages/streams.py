from __future__ import annotations

from typing import Literal

from flowc.errors import nearest
from flowc.frontend.builder import Builder
from flowc.frontend.stage import Composite, Runner, Stage, Stages, attr
from flowc.ir.core.elementwise import Binary
from flowc.ir.core.layout import Concat, Reshape
from flowc.ir.core.sequence import PartLike
from flowc.ir.graph import Value


def stream(b: Builder, name: str) -> Value:
    """A named stream; reports one that no stage has stored."""
    found = b.state.streams.get(name)
    if found is None:
        hint = nearest(name, b.state.streams) or "`store_stream` makes one"
        raise b.fail("undefined-slot", f"there is no stream '{name}'", hint=hint)
    return found


class Input(Stage, name="input"):
    """Replaces the active value by a graph input that the spec declares."""

    reads = ("input",)
    example = "input: hidden_states"
    name: str = attr(doc="Name of the input, as under `inputs:`.", main=True)

    def expand(self, b: Builder, x: Value) -> Value:
        return b.input(self.name)


class StoreStream(Stage, name="store_stream"):
    """Keeps the active value as a named stream, and hands it on. A stream of that name is replaced."""

    writes = ("streams",)
    example = "store_stream: img"
    name: str = attr(doc="Name of the stream.", main=True)

    def expand(self, b: Builder, x: Value) -> Value:
        b.state.streams[self.name] = x
        return x


class LoadStream(Stage, name="load_stream"):
    """Replaces the active value by a named stream."""

    reads = ("streams",)
    example = "sequence: [store_stream: img, load_stream: img]"
    name: str = attr(doc="Name of the stream.", main=True)

    def expand(self, b: Builder, x: Value) -> Value:
        return stream(b, self.name)


class AddStream(Stage, name="add_stream"):
    """Adds a named stream to the active value. One without a sequence, [batch, channels], counts for every token."""

    reads = ("active", "streams")
    example = "sequence: [store_stream: img, add_stream: img]"
    name: str = attr(doc="Name of the stream.", main=True)

    def expand(self, b: Builder, x: Value) -> Value:
        return _with_stream(b, "add", x, self.name)


class ScaleByStream(Stage, name="scale_by_stream"):
    """Multiplies the active value by a named stream. One without a sequence, [batch, channels], counts for every token."""

    reads = ("active", "streams")
    reference = "the gates of diffusers' FluxTransformerBlock"
    example = "sequence: [store_stream: gate, scale_by_stream: gate]"
    name: str = attr(doc="Name of the stream.", main=True)

    def expand(self, b: Builder, x: Value) -> Value:
        return _with_stream(b, "mul", x, self.name)


def _with_stream(b: Builder, function: Literal["add", "mul"], x: Value, name: str) -> Value:
    """The active value with a stream added or multiplied: still of its own shape."""
    y = b.op(Binary(function), x, per_token(b, stream(b, name), x))
    if y.shape != x.shape:
        raise b.fail("bad-shape", f"the stream '{name}' would make {y.type} of the active value {x.type}")
    return y


def per_token(b: Builder, value: Value, x: Value) -> Value:
    """[batch, channels] as [batch, 1, channels] where x has a sequence; anything else as it is."""
    if value.type.rank == 2 and x.type.rank == 3:
        return b.op(Reshape((value.shape[0], 1, value.shape[1])), value, name="per_token")
    return value


class JoinStreams(Stage, name="join_streams"):
    """Joins named streams, in order, along their sequence (axis 1) or their channels (axis -1)."""

    reads = ("streams",)
    example = "sequence: [store_stream: img, join_streams: [img, img]]"
    names: tuple[str, ...] = attr(doc="Names of the streams.", main=True)
    axis: int = attr(doc="The axis along which they are joined.", default=1)

    def expand(self, b: Builder, x: Value) -> Value:
        if not self.names:
            raise b.fail("bad-value", "stage 'join_streams' needs at least one stream")
        if self.axis not in (1, -1):
            raise b.fail("bad-value", f"streams are joined along axis 1 or -1, not {self.axis}", b.place("axis"))
        return b.op(Concat(self.axis), *[stream(b, name) for name in self.names])


class PartOfStream(Stage, name="part_like_stream"):
    """Keeps as many of the first or last tokens of the active value as a named stream has."""

    reads = ("active", "streams")
    example = "sequence: [store_stream: img, part_like_stream: {name: img, end: last}]"
    name: str = attr(doc="Name of the stream.", main=True)
    end: Literal["first", "last"] = attr(doc="Which ones.", default="last")

    def expand(self, b: Builder, x: Value) -> Value:
        return b.op(PartLike(self.end == "last"), x, stream(b, self.name))


class DualStream(Composite, name="dual_stream"):
    """A block over two streams that meet in the middle: each body works on its own stream, `joint` on both together.

    `before_a` and `before_b` run on the streams; their results, joined along the sequence (a first), are the active
    value of `joint`; `after_a` and `after_b` run on the two parts of its result, and what they give are the new streams.
    While the bodies run, the streams themselves are as they were before the block. Without `joint` nothing is joined.
    The active value outside the block is left alone.
    """

    reads = ("active", "streams")
    writes = ("streams",)
    reference = "diffusers FluxTransformerBlock"
    example = (
        "sequence: [store_stream: txt, store_stream: img, dual_stream: {a: txt, b: img, "
        "joint: [zero_beta: {len: 64}], after_a: [add_stream: txt], after_b: [add_stream: img]}]"
    )
    a: str = attr(doc="Name of the stream that comes first in the joint part.")
    b: str = attr(doc="Name of the other stream.")
    before_a: Stages = attr(doc="Stages on stream a before they meet.", default=Stages(()))
    before_b: Stages = attr(doc="Stages on stream b before they meet.", default=Stages(()))
    joint: Stages = attr(doc="Stages on both, joined along the sequence.", default=Stages(()))
    after_a: Stages = attr(doc="Stages on a's part afterwards.", default=Stages(()))
    after_b: Stages = attr(doc="Stages on b's part afterwards.", default=Stages(()))
    name: str = attr(doc="Label of the block in dumps and reports.", default="dual")

    def unfold(self, b: Builder, x: Value, runner: Runner) -> Value:
        if self.a == self.b:
            raise b.fail("bad-value", f"stage 'dual_stream' needs two streams, not '{self.a}' twice")
        first = runner.run(self.before_a, stream(b, self.a), f"{self.name}.{self.a}")
        second = runner.run(self.before_b, stream(b, self.b), f"{self.name}.{self.b}")
        if self.joint.items:
            both = runner.run(self.joint, b.op(Concat(1), first, second, name="joined"), f"{self.name}.joint")
            first, second = (
                b.op(PartLike(last), both, value, name="part") for last, value in ((False, first), (True, second))
            )
        first = runner.run(self.after_a, first, f"{self.name}.{self.a}_after")
        second = runner.run(self.after_b, second, f"{self.name}.{self.b}_after")
        b.state.streams[self.a], b.state.streams[self.b] = first, second
        return x
