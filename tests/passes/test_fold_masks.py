from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flowc.ir.core.attention import Attention, AttentionMask
from flowc.ir.graph import Graph
from flowc.ir.visibility import CAUSAL, EVERYTHING, Visibility
from flowc.passes.fold_masks import fold_masks
from flowc.passes.fold_rope import fold_rope
from tests.passes.making import LLAMA, apply, compile_text, count, same_numbers

MIXED = LLAMA.replace(
    "repeat: {count: $layers, body: [llama_decoder: 'model.layers.{i}']}",
    "repeat: {count: 4, body: [when: {value: '{i}', equals: '1', then: [llama_decoder: 'model.layers.{i}'], "
    "otherwise: [llama_decoder: {prefix: 'model.layers.{i}', window: 3}]}]}",
)


def seen(graph: Graph) -> list[Visibility]:
    return [n.op.visibility for n in graph.nodes if isinstance(n.op, (Attention, AttentionMask))]


@pytest.mark.parametrize("padding", ["left", "right", "ragged"])
@pytest.mark.parametrize("phase", ["prefill", "decode", "unified"])
def test_one_mask_per_window(tmp_path: Path, phase: Any, padding: str) -> None:
    compiled = compile_text(tmp_path, MIXED, graphs=(phase,))
    result = apply(fold_masks, compiled.expanded[phase])
    masks = {n.outputs[0]: n.op for n in result.after.nodes if isinstance(n.op, AttentionMask)}
    assert len(masks) == 2
    assert {m.visibility for m in masks.values()} == {Visibility(phase != "decode"), Visibility(phase != "decode", 2)}
    for node in result.after.nodes:
        if isinstance(node.op, Attention):
            assert node.input("mask") in masks
            assert node.input("key_mask") is None
    assert len(result.audit.fired) == 4
    for on in ("ort-cpu", "portable"):
        same_numbers(result, compiled, padding=padding, on=on)


@pytest.mark.parametrize("phase", ["prefill", "decode", "unified"])
def test_without_padding_causal_is_the_operators_own(tmp_path: Path, phase: Any) -> None:
    compiled = compile_text(tmp_path, LLAMA, graphs=(phase,), assume="no-padding")
    result = apply(fold_masks, compiled.expanded[phase])
    assert count(result.after, AttentionMask) == 0
    assert seen(result.after) == [EVERYTHING if phase == "decode" else CAUSAL] * 2
    same_numbers(result, compiled)


@pytest.mark.parametrize("phase", ["prefill", "decode", "unified"])
def test_a_window_needs_a_mask_even_without_padding(tmp_path: Path, phase: Any) -> None:
    compiled = compile_text(tmp_path, MIXED, graphs=(phase,), assume="no-padding")
    result = apply(fold_masks, compiled.expanded[phase])
    assert count(result.after, AttentionMask) == 1
    same_numbers(result, compiled)


def test_right_padding_in_a_prompt_hides_nothing_that_causality_does_not(tmp_path: Path) -> None:
    compiled = compile_text(tmp_path, LLAMA, graphs=("prefill",), assume="right-padding")
    result = apply(fold_masks, compiled.expanded["prefill"], assume="right-padding")
    layers = [n for n in result.after.nodes if isinstance(n.op, Attention)]
    assert seen(result.after) == [CAUSAL] * 2
    assert [(n.input("key_mask"), n.input("mask")) for n in layers] == [(None, None)] * 2
    assert len(result.audit.fired) == 2
    same_numbers(result, compiled, padding="right")


def test_what_is_lean_already_is_not_counted(tmp_path: Path) -> None:
    compiled = compile_text(tmp_path, LLAMA, graphs=("prefill",), assume="no-padding")
    assert not apply(fold_masks, compiled.expanded["prefill"]).audit.fired


@pytest.mark.parametrize(("window", "hides"), [(63, True), (64, False), (100, False)])
def test_a_window_as_wide_as_the_context_hides_nothing(tmp_path: Path, window: int, hides: bool) -> None:
    text = LLAMA.replace(
        "llama_decoder: 'model.layers.{i}'", f"llama_decoder: {{prefix: 'model.layers.{{i}}', window: {window}}}"
    )
    compiled = compile_text(tmp_path, text, graphs=("prefill",), assume="no-padding")
    folded = apply(fold_rope, compiled.expanded["prefill"])
    result = apply(fold_masks, folded.after)
    assert count(result.after, AttentionMask) == int(hides)
    unfolded = apply(fold_masks, compiled.expanded["prefill"])  # nothing stops a longer call there
    assert count(unfolded.after, AttentionMask) == 1
    same_numbers(result, compiled)
