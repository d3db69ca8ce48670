"""Random specs: flows of many stage kinds, with the options of a build and what their masks may look like.

Only what has a meaning is drawn. What a padded token is has none, so

- a flow whose stages see one padding mask may meet any padding, and its results are compared at tokens;
- in a flow of several masks (one stage's padding is another's token) every mask leaves every token something to see;
- what takes the first column meets no padding there;
- under an assumption the masks are as it says.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from hypothesis import strategies as st

from flowc.passes.pipeline import PIPELINE
from flowc.stage import load_all

Draw = Callable[[st.SearchStrategy[Any]], Any]
Stage = str | dict[str, Any]
Stages = list[Stage]

VOCAB = 23
CONTEXT = 24
ACTIVATIONS = ("silu", "gelu", "gelu_tanh", "quick_gelu", "relu", "tanh", "sigmoid")
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
        self.first_column = False
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

    # Ropes, windows and layers

    def rope_stages(self) -> Stages:
        """One or two ropes."""
        stages: Stages = []
        for name in ("rope", "other_rope")[: self.pick(1, 1, 2)]:
            facts = dict(self.pick(*ROPES))
            if facts.get("type") == "longrope":
                half = range(self.head_dim // 2)
                facts |= {"short_factor": [1 + i / 8 for i in half], "long_factor": [2 + i / 4 for i in half]}
            stages.append({"rope_tables": {**facts, "name": name}})
            self.ropes.append(name)
        return stages

    def rope(self) -> dict[str, Any]:
        """A rope, or none."""
        return {"rope": self.pick(*self.ropes) if self.ropes and not self.maybe(5) else None}

    def window(self) -> dict[str, Any]:
        """A window, perhaps wider than the context."""
        least = 2 if self.several_masks else 1
        return {"window": self.pick(least, 2, 3, 5, CONTEXT, 30)} if self.maybe() else {}

    def decoder_layer(self) -> Stages:
        """A layer that keeps keys and values, or a state."""
        index = "{i}" if self.inside else str(self.layer)
        self.layer += not self.inside
        pre = f"model.layers.{index}"
        kind = self.pick("whole", "whole", "whole", "composed", "gated", "delta", "tapped")
        if kind == "whole":
            return [self.whole_layer(pre)]
        if kind == "tapped":
            rope = self.rope()
            layer = {"llama_decoder": {"prefix": pre, **rope, **self.window()}}
            if not self.inside and self.maybe(3):  # a tap whose layer is not there
                self.layer += 1
                return [layer, {"llama_kv_tap": {"prefix": f"model.layers.{index}", "layer": self.layer - 1, **rope}}]
            return [{"llama_kv_tap": {"prefix": pre, **rope}}, layer]
        if kind == "delta":
            keys, values = (
                {"key_heads": 2, "key_dim": 4},
                {"value_heads": self.pick(2, 4), "value_dim": self.pick(6, 4)},
            )
            fields = {"prefix": f"{pre}.linear", **keys, **values, "kernel": 3, **self.switch("grouped")}
            inner: Stages = [{"gated_delta_net": fields}]
        elif kind == "gated":
            fields = {"prefix": f"{pre}.self_attn", **self.rope(), **self.switch("attention_bias")}
            inner = [{"gated_attention": fields}]
        else:
            inner = self.composed(f"{pre}.self_attn")
        return self.residual(self._norm() + inner)

    def whole_layer(self, prefix: str, kinds: Sequence[str] = ()) -> Stage:
        """A layer of one of the families."""
        kind = self.pick(*(kinds or ("llama", "qwen3", "gemma", "phi3", "qwen3_moe")))
        fields: dict[str, Any] = {"prefix": prefix, **self.rope(), **self.switch("attention_bias")}
        if kind == "qwen3_moe":
            return {"qwen3_moe_decoder": {**fields, **self.experts()}}
        fields |= {**self.window(), "activation": self.pick(*ACTIVATIONS)}
        if kind == "gemma":
            style = self.pick("gemma", "gemma2", "gemma3")
            fields |= {"style": style, "softcap": self.pick(None, 5.0) if style == "gemma2" else None}
        if kind == "qwen3":
            fields |= self.switch("qk_norm")
        return {f"{kind}_decoder": fields}

    def composed(self, prefix: str) -> Stages:
        """Causal attention from its parts."""
        fields: dict[str, Any] = {**self.rope(), **self.window(), **self.switch("bias", "qk_norm")}
        fields |= {"norm_offset": self.pick(0.0, 1.0), "softcap": self.pick(None, 4.0)}
        tap: Stages = []
        if prefix.startswith("model.") and self.maybe(3):
            tap = [{"gemma_kv_tap": {"prefix": prefix.removesuffix(".self_attn"), "rope": fields["rope"]}}]
        output = {"weight": f"{self.new('o')}.weight", "out": "$hidden"}
        stages: Stages = [{"self_attn_prefill": {"prefix": prefix, **fields}}, {"linear": output}]
        return tap + stages + self.scaled(2)

    def encoder_layer(self) -> Stages:
        """A layer whose tokens see both sides; or one that a decoder could have."""
        prefix = self.new("layers.")
        fields: dict[str, Any] = {"prefix": prefix}
        reach = {"reach": self.pick(1, 2, 3, 30)} if self.maybe() else {}
        bias = {"bias": "relative"} if self.relative and self.maybe() else {}
        act = {"activation": self.pick(*ACTIVATIONS)}
        kinds = ["parts", "parts", "vit"]
        if self.hidden == self.wide:
            kinds += ["bert", "modernbert", "nomic", "dinov2"]
        if self.causal and not self.inside:
            kinds.append("causal")
        match self.pick(*kinds):
            case "bert":
                return [{"bert_encoder_layer": {**fields, **act, **bias}}]
            case "modernbert":
                norms = self.switch("attn_norm", "norm_bias")
                return [{"modernbert_layer": {**fields, **reach, **self.rope(), **norms}}]
            case "nomic":
                return [{"nomic_encoder_layer": {**fields, **self.rope(), **self.switch("interleaved", "up_bias")}}]
            case "dinov2":
                return [{"dinov2_layer": {**fields, "mlp": self.pick("gelu", "swiglu")}}]
            case "causal":
                self.layer += 1
                return self.residual(self.composed(f"layers.{self.layer - 1}.self_attn"))
            case "vit":
                return self.residual(self.vit(prefix))
            case _:
                inner: Stage = {"encoder_self_attn": {**self.projections(prefix), **bias, **reach, **self.rope()}}
                stages = [*self._norm(), inner, *self.scaled(3)]
                return self.residual(stages) if self.maybe() else stages

    def vit(self, prefix: str) -> Stages:
        """Attention of images."""
        fields = {**self.projections(prefix), **self.rope(), **self.switch("bias", "out_bias")}
        return [*self._norm(), {"vit_self_attn": fields}, *self.scaled(2)]

    def projections(self, prefix: str) -> dict[str, Any]:
        """Names of the projections, packed or apart."""
        parts = ("qkv",) if self.maybe() else ("q", "k", "v")
        return {name: f"{prefix}.{name}.weight" for name in (*parts, "out")}

    # Whole flows

    def repeated(self, layer: Callable[[], Stages]) -> Stages:
        """Layers in a `repeat`, of one kind or two by turns."""
        self.inside = ".{i}"
        if self.maybe():
            body: Stages = [{"when": {"value": "$kinds[i]", "equals": "a", "then": layer(), "otherwise": layer()}}]
        else:
            body = layer()
        body += self.points(0, 1)
        self.inside = ""
        self.layer = 2
        return [{"repeat": {"count": "$layers", "body": body}}]

    def last_token(self) -> Stages:
        """The choice of one token."""
        self.single = True
        return ["gather_last_token"]

    def head(self) -> Stages:
        """Scores of all words."""
        own = {"weight": "head.weight"}
        cap: Stages = [{"logit_softcap": {"cap": 4.0}}] if self.maybe(3) else []
        return [{"lm_head": self.pick({"tied": True}, own, {**own, "bias": True}, {"weight": "embed.weight"})}, *cap]

    def decoder(self) -> Stages:
        """A decoder with one flow for its phases; what follows a chosen token may go on with all of them."""
        flow: Stages = [{"embed": "embed.weight"}]
        flow += ["embed_scale"] if self.maybe(3) else []
        flow += self.rope_stages()
        if self.maybe(3):
            flow += self.repeated(self.decoder_layer)
        else:
            flow += self.some(lambda: self.points(0, 2) + self.wrapped(self.decoder_layer()), 1, 3)
        flow += self.points()
        if not self.maybe(4):
            flow += self.last_token() + self.points()
            whole = [name for name, single in self.streams.items() if not single]
            if whole and self.maybe(4):
                self.single = False
                flow += [{"load_stream": self.pick(*whole)}, *self.decoder_layer(), *self.last_token()]
        return flow + self.head()

    def by_phase(self) -> dict[str, Stages]:
        """A decoder whose phases are spelt out, over the same weights."""
        ropes = self.rope_stages()
        layers = [self.whole_layer(f"model.layers.{i}", ("llama", "qwen3", "gemma")) for i in range(self.pick(1, 2))]
        head = self.head()
        flows: dict[str, Stages] = {}
        for phase in self.pick(("prefill", "decode"), ("decode",), ("unified", "decode"), ("prefill",), ("unified",)):
            self.streams, self.single = {}, False
            decode = phase == "decode"
            flow: Stages = [{"bind_decode_inputs": {"layers": len(layers)}}] if decode else []
            flow += [{"embed": "embed.weight"}, *self.points(0, 1)]
            kind = self.pick("rope_tables", "decode_rope_params") if decode else "rope_tables"
            fixed = {"position": 4} if kind == "decode_rope_params" and self.maybe(3) else {}
            for _, fields in map(stated, ropes):
                flow.append({kind: {**fields, **fixed}})
            for name, fields in map(stated, layers):
                flow += [{name.replace("_decoder", "_decode_layer") if decode else name: fields}, *self.points(0, 1)]
            flows[phase] = flow + (self.last_token() if self.maybe() else []) + head
        return flows

    def _choose_mask(self, *names: str | None) -> Stages:
        name = self.pick(*(names or (None, "attention_mask", "other")))
        if name is not None:
            self.inputs[name] = IDS
        return [{"attn_mask": {"input": name}} if name else "attn_mask"]

    def looked_up(self, table: str, rows: int, **ids: Any) -> Stage:
        """Rows of a table that are added."""
        return {"gather_add": {"weight": f"{table}.weight", "rows": rows, **ids}}

    def encoder(self) -> Stages:
        """An encoder of tokens: all of them, one of them, or vectors."""
        self.inputs["input_ids"] = IDS
        self.several_masks = self.maybe(3)
        flow: Stages = [{"embed": "embed.weight"}]
        if self.maybe(4):
            flow += ["column_positions", self.looked_up("position", CONTEXT, input="position_ids")]
        if self.maybe(4):
            flow += [self.looked_up("type", 2, row=1)]
        elif self.maybe(4):
            self.inputs["token_type_ids"] = IDS
            flow += [self.looked_up("type", 2, input="token_type_ids")]
        if self.maybe(4):
            flow += [{"positions_from_ids": {"pad": 1, "name": "made"}}, self.looked_up("made", 30, input="made")]
        if self.maybe():
            flow += [{"relative_bias": {"weight": "relative.weight", "buckets": 8, "max_distance": 6}}]
            self.relative = True
        flow += self.rope_stages()
        if not self.several_masks and self.maybe(3):
            mask = self._choose_mask()
            self.causal = mask == [{"attn_mask": {"input": "attention_mask"}}]
            flow += mask
        if self.maybe(4):
            flow += self.repeated(self.encoder_layer)
        for _ in range(self.pick(1, 2, 3)):
            flow += self.points(0, 2) + self.wrapped(self.encoder_layer())
            if self.several_masks and self.maybe():
                flow += self._choose_mask()
            if self.maybe(8):
                flow += self._pooled(f"vector{self.new('')}")
        return flow + self.points() + self._encoder_end()

    def _pooled(self, output: str | None = None) -> Stages:
        """One vector of each row, as an output beside the tokens or in their place."""
        named = {"output": output} if output else {}
        how = self.pick("mean", "cls", "last", "last", "cls", "max", "mean_sqrt_len")
        pool: Stage = {"pool": {"how": how, **self.switch("normalize"), **named}}
        pooler: Stage = {"pooler": {"weight": f"{self.new('pooler')}.weight", **named}}
        stage = self.pick(pool, pool, pool, {"cls_token_pool": named}, pooler)
        self.first_column |= "cls_token_pool" in stage
        return [stage]

    def _encoder_end(self) -> Stages:
        match self.pick("tokens", "pool", "pool", "pool", "pools", "last", "last", "words"):
            case "pool":
                classes: Stages = [{"linear": {"weight": "classes.weight", "out": 3, "bias": True}}]
                return self._pooled() + (classes if self.maybe() else [])
            case "pools":
                return self._pooled("one") + self._pooled("two")
            case "last" if self.causal and self.kind == "encoder":
                return [*self.last_token(), *self.points(), *(self.head() if self.maybe() else [])]
            case "words" if self.kind == "encoder":
                return [{"mlm_head": {"dense": "dense.weight", "norm": "words.weight", "decoder_bias": "words_bias"}}]
            case _:
                return []

    def chooser(self) -> Stages:
        """An encoder that keeps one token of each row right behind a layer, under masks that differ."""
        self.inputs["input_ids"] = IDS
        self.several_masks = self.relative = True
        flow: Stages = [
            {"embed": "embed.weight"},
            {"relative_bias": {"weight": "bias", "buckets": 8, "max_distance": 6}},
        ]
        fields: dict[str, Any] = {"reach": self.pick(1, 1, 2, None), "bias": self.pick(None, None, "relative")}
        flow += [*self._choose_mask("other", None), {"encoder_self_attn": {**self.projections("first"), **fields}}]
        if self.maybe():
            flow += [*self._choose_mask(), {"encoder_self_attn": {**self.projections("second"), **fields}}]
        return flow + self.pick(["gather_last_token"], ["gather_last_token"], [{"pool": "last"}], [{"pool": "cls"}])

    def image(self) -> Stages:
        """An encoder of images, of a fixed size or an open one."""
        patch = self.pick([2, 2], [3, 2])
        height, width = self.pick(2, 3) * patch[0] + self.pick(0, 1), self.pick(2, 1, 3) * patch[1] + self.pick(0, 1)
        opened = self.maybe(4)
        sizes = "height, width" if opened else f"{height}, {width}"
        self.inputs["pixel_values"] = f"float32[batch_size, $channels, {sizes}]"
        self.patch = patch
        flow: Stages = [{"patch_embed": {"weight": "patches.weight", **self.switch("bias", "convolution")}}]
        leading = 0
        for name in ("cls", "registers")[: self.pick(1, 0, 2)]:
            count = self.pick(1, 3)
            flow.append({"prepend_tokens": {"weight": name, "count": count, "after": leading}})
            leading += count
        if not opened and self.maybe():
            other = {"grid": [2, 2], "leading": leading, **self.switch("antialias")} if self.maybe() else {}
            flow.append({"add_positions": {"weight": "positions", **self.switch("flat"), **other}})
        if opened or self.maybe():
            style = self.pick("centred", "grid")
            stretched = {"reference_grid": [3, 3]} if style == "grid" and self.maybe() else {}
            flow.append({"patch_rope": {"theta": 100, "style": style, "leading": leading, **stretched}})
            self.ropes.append("rope")
        for _ in range(self.pick(1, 2)):
            whole = self.hidden == self.wide and self.maybe(3)
            name = self.new("layer.")
            layer: Stages = [{"dinov2_layer": {"prefix": name}}] if whole else self.residual(self.vit(name))
            flow += self.wrapped(layer) + self.points(0, 1)
        if self.maybe(4):
            names = self.pick({"qkv": "probe.qkv"}, {"q": "probe.q", "kv": "probe.kv"})
            flow.append({"attention_pool": {"query": "probe", "out": "probe.out", **names}})
            return flow + self._mlp()
        return flow + self._encoder_end()

    def streams_of_two(self) -> Stages:
        """Blocks over an image and a text, as of FLUX."""
        rope: Stages = self.pick(
            [{"rope_inputs": {"cos": "cos", "sin": "sin"}}],
            [{"axial_rope": {"ids": ["txt_ids", "img_ids"], "dims": [2, self.head_dim - 2], "theta": 100}}],
            [],
        )
        for side, sequence in (("img", "image_tokens"), ("txt", "text_tokens")):
            self.inputs[side] = f"float32[batch_size, {sequence}, $hidden]"
            if rope and "axial_rope" in rope[0]:
                self.inputs[f"{side}_ids"] = f"float32[{sequence}, 2]"
        if rope and "rope_inputs" in rope[0]:
            self.inputs |= dict.fromkeys(("cos", "sin"), "float32[text_tokens + image_tokens, $head_dim]")
        timestep = self.maybe(3)
        self.inputs["temb"] = "float32[batch_size]" if timestep else "float32[batch_size, $hidden]"
        flow: Stages = [{"store_stream": "img"}, {"input": "txt"}, {"store_stream": "txt"}, {"input": "temb"}]
        flow += [{"timestep_sinusoid": {"dim": 6, "factor": 10}}, *self._linear()] if timestep else []
        flow += [{"store_stream": "temb"}, *rope]
        for block in range(self.pick(1, 2)):
            sides: dict[str, Stages] = {}
            for end, side in (("a", "txt"), ("b", "img")):
                p = f"block{block}.{side}"
                shift, scale, gate = chunks = [f"{side}_{name}" for name in ("shift", "scale", "gate")]
                made = {"condition": "temb", "weight": f"{p}.mod.weight", "into": chunks, **self.switch("bias")}
                names = {n: f"{p}.{n}.weight" for n in "qkv"} | self.switch("bias")
                norms = {"q_norm": f"{p}.q_norm", "k_norm": f"{p}.k_norm", "eps": "$norm_eps"} if self.maybe() else {}
                before: Stages = [{"modulation": made}, {"modulate": {"shift": shift, "scale": scale}}]
                after: Stages = [{"linear": {"weight": f"{p}.out.weight", "out": "$hidden"}}]
                after += [{"scale_by_stream": gate}] if self.maybe() else []
                after += [{"add_stream": side}, *(self.residual(self._mlp()) if self.maybe() else [])]
                sides |= {f"before_{end}": [*before, {"project_qkv": {**names, **norms}}], f"after_{end}": after}
            joint: Stages = [{"joint_attention": {"rope": "rope" if rope else None}}]
            flow.append({"dual_stream": {"a": "txt", "b": "img", "joint": joint, **sides}})
        both: Stages = [{"load_stream": "txt"}, {"output": "text_out"}] if self.maybe() else []
        return [*flow, *both, {"load_stream": "img"}, *self._function()]

    # The text

    def model(self) -> dict[str, Any]:
        """Values of `model:`."""
        attention = {"heads": self.heads, "kv_heads": self.kv_heads, "head_dim": self.head_dim}
        other = {"norm_eps": 1e-5, "channels": 2, "patch": self.patch, "layers": 2, "kinds": ["a", "b"]}
        return {"hidden": self.hidden, **attention, "ffn": self.pick(16, 5), **other}

    def case(self, flow: Stages | dict[str, Stages]) -> Case:
        """The spec with its head, and a build of it."""
        flows = flow if isinstance(flow, dict) else {"*": flow}
        used = set[str]().union(*map(needed, flows.values()))
        used |= {s for s in ("channels", "hidden", "head_dim") if any(f"${s}" in t for t in self.inputs.values())}
        model = {k: v for k, v in self.model().items() if k in used} | {"vocab": VOCAB, "context_length": CONTEXT}
        kind = "decoder" if self.kind == "decoder" else "encoder"
        head: dict[str, Any] = {"flowc": 1, "name": "random", "kind": kind, "model": model}
        head["weights"] = {"random": self.pick(*range(5))}
        if self.inputs:
            first = next((n for n in ("input_ids", "pixel_values", "img") if n in self.inputs), "")
            head["inputs"] = {first: self.inputs[first], **self.inputs}
        options = self.options()
        if self.kind == "decoder" and self.maybe(4):
            head["rename"] = {"input_ids": "tokens"}
            if options["assume"] != "no-padding":
                head["rename"]["attention_mask"] = "mask"
        lines = [f"{key}: {json.dumps(value)}" for key, value in head.items()]
        lines.append("flow:")
        for phase, stages in flows.items():
            lines += [f"  {phase}:"] if phase != "*" else []
            lines += [f"  - {json.dumps(stage)}" for stage in stages]
        return Case("\n".join(lines) + "\n", options, self.several_masks, self.first_column)

    def options(self) -> dict[str, Any]:
        """How the spec is built."""
        assumptions = ["none", "none", "none", "no-padding"] + ["right-padding"] * (not self.several_masks)
        skipped = [p.__name__ for p in PIPELINE if self.maybe(6)] if self.maybe(3) else []
        options = {"target": self.pick("ort-cpu", "portable"), "assume": self.pick(*assumptions)}
        options |= {"logits": self.pick("last", "last", "all"), "context": self.pick(None, None, 20)}
        return {**options, "skip_passes": tuple(skipped)}


@st.composite
def decoders(draw: Draw) -> Case:
    """Decoders: one flow for all phases."""
    maker = Maker(draw, "decoder")
    return maker.case(maker.decoder())


@st.composite
def phased_decoders(draw: Draw) -> Case:
    """Decoders with a flow for each phase."""
    maker = Maker(draw, "decoder")
    return maker.case(maker.by_phase())


@st.composite
def encoders(draw: Draw) -> Case:
    """Encoders of tokens."""
    maker = Maker(draw, "encoder")
    return maker.case(maker.encoder())


@st.composite
def choosers(draw: Draw) -> Case:
    """Encoders of which one token is kept."""
    maker = Maker(draw, "encoder")
    return maker.case(maker.chooser())


@st.composite
def images(draw: Draw) -> Case:
    """Encoders of images."""
    maker = Maker(draw, "image")
    return maker.case(maker.image())


@st.composite
def dual_streams(draw: Draw) -> Case:
    """Blocks over two streams."""
    maker = Maker(draw, "streams")
    return maker.case(maker.streams_of_two())
