"""Random parts of flows: draws, and stages that work token by token."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from hypothesis import strategies as st

from flowc.stages import load_all

Draw = Callable[[st.SearchStrategy[Any]], Any]
Stage = str | dict[str, Any]
Stages = list[Stage]

VOCAB = 23
CONTEXT = 24
ACTIVATIONS = (
    "silu", "gelu", "gelu_tanh", "gelu_10", "quick_gelu", "relu", "relu2", "leaky_relu", "mish", "tanh", "sigmoid",
    "linear",
)  # fmt: skip
ROPES: tuple[dict[str, Any], ...] = (
    {"theta": 10000},
    {"theta": 700, "rotary_dim": 4},
    {"theta": 10000, "type": "linear", "factor": 3.0},
    {"theta": 10000, "type": "llama3", "factor": 4.0, "original_length": 8},
    {"theta": 10000, "type": "yarn", "factor": 2.0, "original_length": 8},
    {"theta": 10000, "type": "longrope", "original_length": 6, "attention_factor": 1.25},
)
BODIES = ("body", "then", "otherwise", "before_a", "before_b", "joint", "after_a", "after_b")
IDS = "int64[batch_size, sequence_length]"


@dataclass(frozen=True, slots=True)
class Case:
    """A spec and a build of it."""

    text: str
    options: dict[str, Any] = field(default_factory=dict[str, Any])
    several_masks: bool = False
    """Every token must see something, also one that a mask calls padding."""
    first_column: bool = False
    """The first column of every row is a token."""

    def __repr__(self) -> str:
        return f"{self.text}# {self.options}, {self.several_masks=}, {self.first_column=}"


def stated(stage: Stage) -> tuple[str, dict[str, Any]]:
    """Kind of a stage and the fields that are given, the main one by its name."""
    if isinstance(stage, str):
        return stage, {}
    kind, given = next(iter(stage.items()))
    if isinstance(given, dict):
        return kind, cast(dict[str, Any], given)
    return kind, {next((a.name for a in load_all()[kind].attributes() if a.main), ""): given}


def needed(stages: Sequence[Stage]) -> set[str]:
    """Entries of `model:` that stages read: those of fields left out, and those behind a `$`."""
    kinds = load_all()
    found: set[str] = set()
    for stage in stages:
        kind, fields = stated(stage)
        found.update(a.symbol for a in kinds[kind].attributes() if a.symbol and a.name not in fields)
        found.update(v[1:].split("[")[0] for v in fields.values() if isinstance(v, str) and v.startswith("$"))
        for name in BODIES:
            found |= needed(fields.get(name, []))
    return found


class Maker:
    """Draws the stages of one flow, and knows what may follow what."""

    def __init__(self, draw: Draw, kind: str) -> None:
        self.draw = draw
        self.kind = kind
        self.kv_heads = self.pick(1, 2)
        self.heads = self.kv_heads * self.pick(1, 2, 3) if kind != "image" else self.pick(1, 2, 3)
        self.head_dim = self.pick(8, 16, 4, 12) if kind != "image" else self.pick(8, 16, 4)
        self.wide = self.heads * self.head_dim
        self.hidden = self.pick(24, self.wide, 12, 32) if kind == "decoder" else self.pick(self.wide, 24)
        self.ropes: list[str] = []
        self.streams: dict[str, bool] = {}
        """Named streams, and whether they hold one token alone."""
        self.single = False
        self.outputs = 0
        self.names = 0
        self.layer = 0
        self.shared = self.maybe(3)
        self.inside = ""
        """What follows a weight's name inside a `repeat`."""
        self.relative = False
        self.causal = True
        """Whether a stage may read attention_mask itself."""
        self.several_masks = False
        self.first_column: bool = False
        self.inputs: dict[str, str] = {}
        self.patch = [2, 2]

    # Draws

    def pick(self, *options: Any) -> Any:
        """One of some values, the simplest first."""
        return self.draw(st.sampled_from(options))

    def maybe(self, times: int = 2) -> bool:
        """True once in so many times."""
        return self.draw(st.integers(0, times - 1)) == times - 1

    def some(self, one: Callable[[], Stages], least: int, most: int) -> Stages:
        """Several draws of stages, one behind the other."""
        return [stage for _ in range(self.draw(st.integers(least, most))) for stage in one()]

    def new(self, stem: str) -> str:
        """A name that nothing has yet."""
        self.names += 1
        return f"{stem}{self.names}{self.inside}"

    def weight(self, stem: str) -> str:
        """Name of a weight; where weights are shared, perhaps one that other stages read too."""
        return f"shared_{stem}.weight" if self.shared and self.maybe(3) else f"{self.new(stem)}.weight"

    def switch(self, *names: str) -> dict[str, bool]:
        """Fields that are true or false."""
        return {name: self.maybe() for name in names}

    # Stages that work token by token

    def points(self, least: int = 0, most: int = 3) -> Stages:
        """Some of them, with residuals."""

        def one() -> Stages:
            stages = self.point()
            return self.residual(stages) if self.maybe(3) else stages

        return self.some(one, least, most)

    def residual(self, stages: Stages) -> Stages:
        """Stages beside a residual."""
        return ["residual_save", *stages, "residual_add"]

    def point(self) -> Stages:
        """Any stage, or few, that keep the width of the tokens."""
        kinds = [self._norm, self._linear, self._mlp, self._function, self._experts, self._custom, self._tap]
        if not self.inside:
            kinds += [self._store] * (2 if self.streams else 4)
        if self.like():
            kinds += [self._with_stream] * 5 + [self._joined] * 2 + [self._dual]
        return self.pick(*kinds)()

    def like(self) -> list[str]:
        """Streams that hold as many tokens as the active value."""
        return [name for name, single in self.streams.items() if single == self.single]

    def _norm(self) -> Stages:
        kind = self.pick("rms_norm", "layer_norm", "gemma_rms_norm")
        return [{kind: {"weight": self.weight("norm"), **(self.switch("bias") if kind == "layer_norm" else {})}}]

    def _linear(self) -> Stages:
        stages: Stages = [{"linear": {"weight": self.weight("linear"), "out": "$hidden", **self.switch("bias")}}]
        return stages + self.scaled(2)

    def scaled(self, times: int) -> Stages:
        """A layer scale, once in so many times."""
        return [{"layer_scale": self.weight("scale")}] if self.maybe(times) else []

    def _mlp(self) -> Stages:
        p = self.new("mlp")
        pair = {"input": f"{p}.in.weight", "output": f"{p}.out.weight"}
        act = {"activation": self.pick(*ACTIVATIONS)}
        stages: Stages = [
            self.pick(
                {"swiglu": {"prefix": p, **act}},
                {"geglu": {"prefix": p, "bias": True}},
                {"gelu_ffn": {"intermediate": pair["input"], "output": pair["output"], **act}},
                {"packed_swiglu": {**pair, **act}},
                {"vision_swiglu_ffn": {"prefix": p}},
            )
        ]
        return stages + self.scaled(3)

    def _function(self) -> Stages:
        return [self.pick("embed_scale", {"activation": self.pick(*ACTIVATIONS)}, {"logit_softcap": {"cap": 3.0}})]

    def _experts(self) -> Stages:
        gate = self.switch("shared_gate")
        return [{"moe": {"prefix": self.new("moe"), **self.experts(), "shared_ffn": self.pick(None, 6), **gate}}]

    def experts(self) -> dict[str, Any]:
        """Fields of a mixture of experts."""
        act = {"activation": self.pick("silu", "gelu")}
        return {"experts": 4, "top": self.pick(2, 1), "moe_ffn": 8, **self.switch("renormalise", "fused"), **act}

    def _custom(self) -> Stages:
        kind = f"float[batch, tokens, {self.hidden}]"
        text = f"c ({kind} x, float[{self.hidden}] w) => ({kind} y) {{ y = Mul(x, w) }}"
        return [{"custom": {"onnx": text, "weight_inputs": {"w": self.weight("custom")}}}]

    def _tap(self) -> Stages:
        if self.inside:
            return ["zero_beta"]
        self.outputs += 1
        return [{"output": f"tapped{self.outputs}"}]

    def _store(self) -> Stages:
        name = f"s{self.draw(st.integers(0, 3))}"
        self.streams[name] = self.single
        return [{"store_stream": name}]

    def _with_stream(self) -> Stages:
        kind = self.pick("add_stream", "scale_by_stream", "load_stream")
        if kind == "load_stream" and self.inside:
            kind = "add_stream"
        return [{kind: self.pick(*self.like())}]

    def _joined(self) -> Stages:
        names = [self.pick(*self.like()), self.pick(*self.like())]
        if self.maybe():
            narrowed = {"weight": self.weight("joined"), "out": "$hidden"}
            return [{"join_streams": {"names": names, "axis": -1}}, {"linear": narrowed}]
        part: Stage = {"part_like_stream": {"name": names[0], "end": self.pick("first", "last")}}
        return [{"join_streams": names}, *self._norm(), part]

    def _dual(self) -> Stages:
        if len(self.like()) < 2:
            return self._with_stream()
        a, b = self.draw(st.permutations(self.like()))[:2]
        return [{"dual_stream": {"a": a, "b": b, "before_a": self._linear(), "after_b": self._norm()}}]

    def wrapped(self, stages: Stages) -> Stages:
        """The same, perhaps as a group."""
        kind = self.pick("", "", "sequence", "named", "when")
        if not stages or not kind:
            return stages
        if kind == "sequence":
            return [{"sequence": stages}] if isinstance(stages[0], str) else [{"sequence": {"body": stages}}]
        if kind == "named":
            return [{"named": {"name": self.new("group").replace("{i}", ""), "body": stages}}]
        return [{"when": {"value": "$head_dim", "equals": self.head_dim, "then": stages, "otherwise": ["zero_beta"]}}]
