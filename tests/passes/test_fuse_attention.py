from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowc.build.compiled import Compiled
from flowc.build.facts import metadata
from flowc.ir.core.attention import Attention, AttentionMask
from flowc.ir.core.positions import Positions
from flowc.ir.core.rope import Rope
from flowc.ir.kernel.group_query import GroupQueryAttention, MaskBias
from flowc.passes.fold_rope import fold_rope
from flowc.passes.fuse_attention import fuse_attention
from tests.passes.making import (
    HEAD,
    LLAMA,
    Array,
    apply,
    assert_close,
    compile_text,
    count,
    random_feeds,
    run,
    run_onnx,
    same_numbers,
)

WINDOWS = LLAMA.replace(
    "repeat: {count: $layers, body: [llama_decoder: 'model.layers.{i}']}",
    "repeat: {count: 3, body: [when: {value: '{i}', equals: '1', then: [llama_decoder: 'model.layers.{i}'], "
    "otherwise: [llama_decoder: {prefix: 'model.layers.{i}', window: 3}]}]}",
)
LONG = LLAMA.replace(
    "rope_tables: {theta: 10000}",
    "rope_tables: {theta: 10000, type: longrope, original_length: 6, attention_factor: 1.25, "
    f"short_factor: {[1.0 + 0.05 * i for i in range(8)]}, long_factor: {[2.0 + 0.5 * i for i in range(8)]}}}",
)
CAPPED = LLAMA.replace(
    "llama_decoder: 'model.layers.{i}'",
    "gemma_decoder: {prefix: 'model.layers.{i}', style: gemma2, softcap: 2.0, window: 4}",
)
NARROW = HEAD.replace("head_dim: 16", "head_dim: 8")  # too narrow for rope inside the operator
ODD = HEAD.replace("head_dim: 16", "head_dim: 12")
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.mark.parametrize("padding", ["none", "left", "right", "ragged"])
@pytest.mark.parametrize("text", [LLAMA, WINDOWS, CAPPED])
def test_decode_adds_its_mask(tmp_path: Path, text: str, padding: str) -> None:
    compiled = compile_text(tmp_path, text, graphs=("decode",))
    result = apply(fuse_attention, compiled.expanded["decode"])
    assert count(result.after, Attention) == 0
    assert count(result.after, GroupQueryAttention) == count(result.before, Attention) == len(result.audit.fired)
    assert count(result.after, MaskBias) == (2 if text is WINDOWS else 1)
    assert not result.audit.missed
    assert result.after.facts["cache"] == "aligned"
    same_numbers(result, compiled, padding=padding)


def test_a_row_of_nothing_but_padding_is_finite(tmp_path: Path) -> None:
    compiled = compile_text(tmp_path, LLAMA, graphs=("decode",))
    result = apply(fuse_attention, compiled.expanded["decode"])
    rng = np.random.default_rng(0)
    feeds: dict[str, Array] = {"input_ids": np.ones((2, 1), np.int64), "attention_mask": np.ones((2, 5), np.int64)}
    for value in result.before.inputs[2:]:
        feeds[value.name] = rng.standard_normal((2, 2, 4, 16)).astype(np.float32)
    want = run(result.before, feeds, compiled)["logits"][0]
    feeds["attention_mask"][1] = 0
    for got in (run(result.after, feeds, compiled), run_onnx(result.after, feeds, compiled)):
        assert all(np.isfinite(a).all() for a in got.values())
        np.testing.assert_allclose(got["logits"][0], want, atol=2e-5)


def test_other_phases_and_targets_keep_attention(tmp_path: Path) -> None:
    compiled = compile_text(tmp_path, LLAMA)
    for phase, on in (("prefill", "ort-cpu"), ("unified", "ort-cpu"), ("decode", "portable")):
        result = apply(fuse_attention, compiled.expanded[phase], on=on)
        assert result.after is result.before
        assert not result.audit.candidates


def test_heads_that_the_kernel_does_not_take_keep_attention(tmp_path: Path) -> None:
    compiled = compile_text(tmp_path, LLAMA, ODD, graphs=("decode",))
    result = apply(fuse_attention, compiled.expanded["decode"])
    assert count(result.after, Attention) == 2
    assert result.after.facts["cache"] == "aligned"
    assert [why for _, why in result.audit.missed] == ["heads of 12 channels are no multiple of 8"] * 2


# --assume right-padding


def generate(
    compiled: Compiled, prompts: Array, mask: Array, steps: Array, way: str, chunk: int = 1, *, compact: bool = True
) -> list[Array]:
    """Logits after a right-padded prompt and after each chunk of steps, with the mask that the cache wants."""
    graph = compiled.graphs["unified" if way == "unified" else "prefill"]
    feeds: dict[str, Array] = {"input_ids": prompts, "attention_mask": mask}
    for value in graph.inputs:
        if value.name.startswith("past"):
            feeds[value.name] = np.zeros((len(prompts), 2, 0, int(value.shape[3])), np.float32)
    found: list[Array] = []
    done = 0
    while True:
        results = run_onnx(graph, feeds, compiled)
        np.testing.assert_allclose(results["logits"], run(graph, feeds, compiled)["logits"], atol=5e-5)
        found.append(results["logits"][:, 0])
        if done >= steps.shape[1]:
            return found
        new = steps[:, done : done + chunk]
        mask = np.concatenate([mask, np.ones_like(new)], axis=1)
        if compact:  # the same number of ones in every row, before any zero
            mask = -np.sort(-mask, axis=1)
        done += new.shape[1]
        feeds = {k.replace("present", "past_key_values"): v for k, v in results.items() if k != "logits"}
        feeds["input_ids"], feeds["attention_mask"] = new, mask
        graph = compiled.graphs["unified" if way == "unified" else "decode"]


@pytest.mark.parametrize(
    ("head", "text", "rotates"),
    [(HEAD, LLAMA, True), (HEAD, WINDOWS, True), (NARROW, LLAMA, False), (HEAD, LONG, False)],
)
@pytest.mark.parametrize(("way", "chunk"), [("pair", 1), ("unified", 1), ("unified", 2)])
def test_right_padded_rows_are_those_rows_alone(
    tmp_path: Path, head: str, text: str, rotates: bool, way: str, chunk: int
) -> None:
    compiled = compile_text(tmp_path, text, head, assume="right-padding")
    rng = np.random.default_rng(4)
    prompts, steps = rng.integers(0, 61, (2, 5)), rng.integers(0, 61, (2, 4))
    mask = np.ones((2, 5), np.int64)
    mask[1, 3:] = 0
    batch = generate(compiled, prompts, mask, steps, way, chunk)
    plain = compile_text(tmp_path, text, head)
    aligned = generate(plain, prompts, mask, steps, way, chunk, compact=False)
    np.testing.assert_allclose(batch, aligned, atol=5e-5)
    for row, length in enumerate((5, 3)):
        for index, logits in enumerate(batch):
            if text is LONG and row == 1 and 5 + index * chunk > 6:
                break  # the longer row has switched the table of both
            alone = np.concatenate([prompts[row, :length], steps[row, : index * chunk]])[None]
            feeds = {"input_ids": alone, "attention_mask": np.ones_like(alone)}
            if text is LONG and alone.shape[1] > 6:
                break  # what was cached before the switch keeps its rotation
            want = run(plain.expanded["prefill"], feeds, plain)["logits"][0, 0]
            np.testing.assert_allclose(logits[row], want, atol=5e-5)
    for phase in ("decode", "unified"):
        graph = compiled.graphs[phase]
        assert count(graph, Attention) == count(graph, AttentionMask) == 0
        assert count(graph, Rope) == (0 if rotates else 2 * count(graph, GroupQueryAttention))
        assert count(graph, Positions) == (0 if rotates else 1)
        assert metadata(compiled, phase)["flowc.cache"] == "compact"
        assert metadata(compiled, phase)["flowc.assume"] == "right-padding"
    assert count(compiled.graphs["prefill"], AttentionMask) == (2 if text is WINDOWS else 1)


def test_what_cannot_keep_a_compact_cache_stays_aligned(tmp_path: Path) -> None:
    compiled = compile_text(tmp_path, LLAMA, ODD, assume="right-padding")
    plain = compile_text(tmp_path, LLAMA, ODD)
    for phase in ("decode", "unified"):
        assert metadata(compiled, phase)["flowc.assume"] == "none"
        assert metadata(compiled, phase)["flowc.cache"] == "aligned"
        assert count(compiled.graphs[phase], Attention) == count(plain.graphs[phase], Attention)
        missed = compiled.audits[phase]["fuse_attention"].missed
        assert [why for _, why in missed] == ["heads of 12 channels are no multiple of 8"] * 2


def test_pretended_padding_shows(tmp_path: Path) -> None:
    """The fused form is right for right padding alone, which is why a build has to ask for it."""
    compiled = compile_text(tmp_path, LLAMA, graphs=("decode",))
    folded = apply(fold_rope, compiled.expanded["decode"])
    result = apply(fuse_attention, folded.after, assume="right-padding")
    with pytest.raises(AssertionError):
        same_numbers(result, compiled, padding="left")
    same_numbers(result, compiled, padding="none")


@pytest.mark.parametrize("rename", ["", "rename: {attention_mask: mask}\n"])
def test_recurrent_layers_keep_the_cache_aligned_whatever_their_mask_is_called(tmp_path: Path, rename: str) -> None:
    text = (EXAMPLES / "qwen3-next.yaml").read_text(encoding="utf-8") + rename
    compiled = compile_text(tmp_path, text, "", assume="right-padding", logits="all")
    for phase in ("decode", "unified"):
        graph = compiled.graphs[phase]
        assert all(not n.op.compact for n in graph.nodes if isinstance(n.op, GroupQueryAttention))
        assert count(graph, GroupQueryAttention) == (phase == "decode")
        assert metadata(compiled, phase)["flowc.assume"] == "none"
        why = [why for _, why in compiled.audits[phase]["fuse_attention"].missed]
        assert why
        assert all("reads the mask column by column" in w for w in why)


@pytest.mark.parametrize("assume", ["none", "right-padding"])
def test_a_tap_without_its_layer_keeps_all_caches_aligned_and_out_of_place(tmp_path: Path, assume: Any) -> None:
    """Its cache is joined column by column, so neither a compact cache nor a buffer of full length suits it."""
    text = LLAMA.replace("  - repeat:", "  - llama_kv_tap: model.layers.2\n  - repeat:")
    compiled = compile_text(tmp_path, text, assume=assume)
    for phase in ("decode", "unified"):
        assert metadata(compiled, phase)["flowc.assume"] == "none"
        assert metadata(compiled, phase)["flowc.cache"] == "aligned"
        feeds = random_feeds(compiled.expanded[phase], padding="none")
        feeds["attention_mask"][1, 2:4] = 0  # a prompt padded on the right
        want = run(compiled.expanded[phase], feeds, compiled)
        assert_close(run_onnx(compiled.graphs[phase], feeds, compiled), want, feeds["attention_mask"])
