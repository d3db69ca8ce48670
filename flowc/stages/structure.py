from __future__ import annotations

from flowc.frontend.builder import Builder
from flowc.frontend.stage import Composite, Runner, Stage, Stages, attr
from flowc.ir.graph import Value


class Repeat(Composite, name="repeat"):
    """Runs its body `count` times; `$i` and `{i}` in the body are the index, from 0."""

    reference = "torch.nn.ModuleList"
    example = "repeat: {count: 2, body: [rms_norm: {weight: 'norms.{i}.weight', eps: 1e-5}]}"
    count: int = attr(doc="How many times.", gt=0)
    body: Stages = attr(doc="The stages to repeat.")
    index: str = attr(doc="Name of the index.", default="i")
    name: str = attr(doc="Label of the repeated part in dumps and reports.", default="layers")

    def unfold(self, b: Builder, x: Value, runner: Runner) -> Value:
        if not self.index.isidentifier() or not self.index.isascii() or self.index in b.spec.model:
            message = f"the index '{self.index}' would hide an entry of `model:`, or is no name"
            raise b.fail("bad-value", message, b.place("index"))
        runner.expect(self.count * (1 + len(self.body.items)))
        for i in range(self.count):
            x = runner.run(self.body, x, f"{self.name}.{i}", **{self.index: i})
        return x


class When(Composite, name="when"):
    """Runs `then` where `value` equals `equals`, else `otherwise`; for layers that differ by a model symbol's list."""

    example = "when: {value: full, equals: full, then: [zero_beta: {len: 64}]}"
    value: str | int | bool = attr(doc="What is looked at, usually `$layer_types[i]`.")
    equals: str | int | bool = attr(doc="What it is compared with.", default=True)
    then: Stages = attr(doc="Stages where they are equal.")
    otherwise: Stages = attr(doc="Stages where they differ.", default=Stages(()))

    def unfold(self, b: Builder, x: Value, runner: Runner) -> Value:
        if type(self.value) is not type(self.equals):
            message = f"stage 'when' compares {self.value!r} with {self.equals!r}, which are never equal"
            raise b.fail("bad-value", message, b.place("value"), "`equals` is true when it is left out")
        return runner.run(self.then if self.value == self.equals else self.otherwise, x)


class Named(Composite, name="named"):
    """Labels a group of stages in dumps, reports and node metadata."""

    example = "named: {name: block, body: [zero_beta: {len: 64}]}"
    name: str = attr(doc="The label.")
    body: Stages = attr(doc="The stages.")

    def unfold(self, b: Builder, x: Value, runner: Runner) -> Value:
        return runner.run(self.body, x, self.name)


class Sequence(Composite, name="sequence"):
    """Runs its stages in order, as one stage."""

    reference = "torch.nn.Sequential"
    example = "sequence: [zero_beta: {len: 64}]"
    body: Stages = attr(doc="The stages.", main=True)

    def unfold(self, b: Builder, x: Value, runner: Runner) -> Value:
        return runner.run(self.body, x)


class Output(Stage, name="output"):
    """Makes the active value a graph output under a name and hands it on."""

    writes = ("output",)
    example = "output: hidden"
    name: str = attr(doc="Name of the output.", main=True)

    def expand(self, b: Builder, x: Value) -> Value:
        b.output(self.name, x)
        return x
