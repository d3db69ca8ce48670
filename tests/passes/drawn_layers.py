"""Random layers: their ropes, windows and options, whole or in parts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.passes.drawn_parts import ACTIVATIONS, CONTEXT, ROPES, Maker, Stage, Stages


class LayerMaker(Maker):
    """Draws layers too."""

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
