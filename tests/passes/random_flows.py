"""Random specs: flows of many stage kinds, with the options of a build and what their masks may look like.

Only what has a meaning is drawn. What a padded token is has none, so

- a flow whose stages see one padding mask may meet any padding, and its results are compared at tokens;
- in a flow of several masks (one stage's padding is another's token) every mask leaves every token something to see;
- what takes the first column meets no padding there;
- under an assumption the masks are as it says.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import strategies as st

from flowc.passes.pipeline import pass_names
from tests.passes.drawn_layers import LayerMaker
from tests.passes.drawn_parts import CONTEXT, IDS, VOCAB, Case, Draw, Stage, Stages, needed, stated


class FlowMaker(LayerMaker):
    """Draws whole flows, and writes them down."""

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
        skipped = [name for name in pass_names() if self.maybe(6)] if self.maybe(3) else []
        options = {"target": self.pick("ort-cpu", "portable"), "assume": self.pick(*assumptions)}
        options |= {"logits": self.pick("last", "last", "all"), "context": self.pick(None, None, 20)}
        return {**options, "skip_passes": tuple(skipped)}


@st.composite
def decoders(draw: Draw) -> Case:
    """Decoders: one flow for all phases."""
    maker = FlowMaker(draw, "decoder")
    return maker.case(maker.decoder())


@st.composite
def phased_decoders(draw: Draw) -> Case:
    """Decoders with a flow for each phase."""
    maker = FlowMaker(draw, "decoder")
    return maker.case(maker.by_phase())


@st.composite
def encoders(draw: Draw) -> Case:
    """Encoders of tokens."""
    maker = FlowMaker(draw, "encoder")
    return maker.case(maker.encoder())


@st.composite
def choosers(draw: Draw) -> Case:
    """Encoders of which one token is kept."""
    maker = FlowMaker(draw, "encoder")
    return maker.case(maker.chooser())


@st.composite
def images(draw: Draw) -> Case:
    """Encoders of images."""
    maker = FlowMaker(draw, "image")
    return maker.case(maker.image())


@st.composite
def dual_streams(draw: Draw) -> Case:
    """Blocks over two streams."""
    maker = FlowMaker(draw, "streams")
    return maker.case(maker.streams_of_two())
