"""Mistakes to plant in the compiler itself, where no change of a spec can make them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from flowc.frontend.builder import Builder
from flowc.ir.core.relative_bias import RelativeBias
from flowc.ir.graph import Value
from flowc.ir.patch_rope import PatchRopeFacts
from flowc.ir.types import BATCH, TOTAL, TensorType
from flowc.stages import encoder_layers, vision
from flowc.stages.blocks import decoder as blocks
from flowc.stages.blocks.decoder import AttentionFacts
from flowc.stages.blocks.encoder import Projection, layer_norm
from flowc.stages.gated_attention import GatedAttention
from flowc.stages.gemma import GemmaDecoder
from flowc.stages.recurrent import GatedDeltaNet

Patch = pytest.MonkeyPatch


@dataclass(frozen=True, slots=True)
class CodeMistake:
    """A mistake, how it is planted, and in which cases it must be seen."""

    what: str
    plant: Callable[[Patch], None]
    cases: tuple[str, ...]
    target: str = "ort-cpu"
    seen: tuple[str, ...] = ()
    """Comparisons that must all fail, beside any of the prefill's or of the encoder's."""
    leaves_weights: bool = False
    """Whether weights are left over that an ordinary build would complain of."""


def _token_mask_ignored(patch: Patch) -> None:
    def nothing(f: Builder, _: Value) -> Value | None:
        f.attention_mask()
        return None

    patch.setattr(encoder_layers, "token_mask", nothing)


def _bias_sides_exchanged(patch: Patch) -> None:
    bucket = RelativeBias.bucket
    patch.setattr(RelativeBias, "bucket", lambda self, distance: bucket(self, -distance))  # pyright: ignore


def _halves_exchanged(patch: Patch) -> None:
    whole = encoder_layers.gated_parts

    def exchanged(f: Builder, x: Value, gate: Projection, up: Projection, *rest: Any, **more: Any) -> Value:
        return whole(f, x, up, gate, *rest, **more)

    patch.setattr(encoder_layers, "gated_parts", exchanged)


def _without_norm(skipped: int) -> Callable[[Patch], None]:
    """The seed has no norm behind the attention."""

    def plant(patch: Patch) -> None:
        norms = GemmaDecoder.norms

        def without(self: GemmaDecoder) -> tuple[str | None, ...]:
            return tuple(None if i == skipped else name for i, name in enumerate(norms(self)))

        patch.setattr(GemmaDecoder, "norms", without)

    return plant


def _query_and_gate_confused(patch: Patch) -> None:
    right = GatedAttention._query_and_gate  # pyright: ignore[reportPrivateUsage]

    def confused(self: GatedAttention, f: Builder, x: Value) -> list[Value]:
        return right(self, f, x)[::-1]

    patch.setattr(GatedAttention, "_query_and_gate", confused)


def _groups_confused(patch: Patch) -> None:
    right = GatedDeltaNet._projections  # pyright: ignore[reportPrivateUsage]

    def confused(self: GatedDeltaNet, f: Builder, x: Value) -> list[Value]:
        mixed, z, b, a = right(self, f, x)
        return [mixed, z, a, b]

    patch.setattr(GatedDeltaNet, "_projections", confused)


def _padding_in_a_state(patch: Patch) -> None:
    right = Builder.attention_mask

    def leaky(self: Builder) -> Value | None:
        return None if self.reporter.site.origin.kind == "gated_delta_net" else right(self)

    patch.setattr(Builder, "attention_mask", leaky)


def _mask_ignored(patch: Patch) -> None:
    def unmasked(self: Builder, *_: Any) -> None:
        self.input("attention_mask", TensorType("int64", (BATCH, TOTAL)))

    patch.setattr(Builder, "attention_mask", unmasked)


def _keys_cached_before_their_rope(patch: Patch) -> None:
    rotate = blocks.rotate

    def unrotated(f: Builder, x: Value, heads: int, facts: AttentionFacts, name: str) -> Value:
        return x if name == "k_rope" else rotate(f, x, heads, facts, name)

    patch.setattr(blocks, "rotate", unrotated)


def _rows_and_columns_exchanged(patch: Patch) -> None:
    angles, half = PatchRopeFacts.angles, 3

    def exchanged(self: PatchRopeFacts, rows: int, columns: int) -> Any:
        return angles(self, rows, columns)[:, list(range(half, 2 * half)) + list(range(half))]

    patch.setattr(PatchRopeFacts, "angles", exchanged)


def _epsilon_ignored(patch: Patch) -> None:
    def ignored(f: Builder, x: Value, weight: str, eps: float, *, bias: bool = True, at: str = "") -> Value:
        return layer_norm(f, x, weight, 1e-2, bias=bias, at=at)

    patch.setattr(vision, "layer_norm", ignored)


_ENCODERS = ("bert_base_like", "mpnet_base_like", "nomic_bert_text", "modernbert_base_like")
_GEMMA = ("gemma2_softcaps", "gemma3_local_global")
_LEAKS = (
    "b2 prefill logits", "right-padded row 1 call 1", "left-padded row 1 present.0.recurrent_state",
    "ragged-padded row 1 present.1.recurrent_state",
)  # fmt: skip

CODE_MISTAKES = (
    CodeMistake("text encoder: the mask ignored", _token_mask_ignored, _ENCODERS),
    CodeMistake("MPNet: buckets of keys ahead and behind exchanged", _bias_sides_exchanged, ("mpnet_base_like",)),
    CodeMistake("gated MLP: the activation on the other half", _halves_exchanged, _ENCODERS[2:]),
    CodeMistake("Gemma: no norm behind the attention", _without_norm(1), _GEMMA, leaves_weights=True),
    CodeMistake("Gemma: no norm behind the MLP", _without_norm(3), _GEMMA, leaves_weights=True),
    CodeMistake("gated attention: query for gate", _query_and_gate_confused, ("qwen3_5_text_b",)),
    CodeMistake("delta net: groups of the projections confused", _groups_confused, ("qwen3_next_moe",)),
    CodeMistake("delta net: padding in a state", _padding_in_a_state, ("qwen3_5_text_b",), seen=_LEAKS),
    CodeMistake("decoder: the mask ignored", _mask_ignored, ("qwen3_tied",)),
    CodeMistake("decoder: keys cached before their rope", _keys_cached_before_their_rope, ("llama_mha",), "portable"),
    CodeMistake("Nomic Vision: rows for columns", _rows_and_columns_exchanged, ("nomic_vision_rope",)),
    CodeMistake("Nomic Vision: the epsilon ignored", _epsilon_ignored, ("nomic_vision_rope",)),
)
