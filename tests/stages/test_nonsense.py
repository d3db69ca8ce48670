"""Specs whose every part is well formed, and which mean nothing as a whole: refused, not compiled to some graph."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowc.errors import SpecError
from tests.passes.making import HEAD, LLAMA, compile_text

EMBED = "  - embed: model.embed_tokens.weight\n"
ROPE = "  - rope_tables: {theta: 10000}\n"
DELTA = "gated_delta_net: {prefix: model.layers.9, key_heads: 2, value_heads: 2, key_dim: 8, value_dim: 8, kernel: 4}"
TEXTS: dict[str, tuple[str, str]] = {
    "a residual that is never added": (LLAMA.replace(ROPE, ROPE + "  - residual_save\n"), "unused-residual"),
    "a rope for narrower heads": (LLAMA.replace("theta: 10000", "theta: 10000, head_dim: 8"), "bad-shape"),
    "an index that hides a symbol": (LLAMA.replace("body", "index: ffn, body").replace("{i}", "{ffn}"), "bad-value"),
    "an index that is no name": (LLAMA.replace("body", "index: 1 x, body").replace("{i}", "0"), "bad-value"),
    "a number that is never true": (
        LLAMA.replace(ROPE, ROPE + "  - when: {value: 1, then: [zero_beta]}\n"),
        "bad-value",
    ),
    "an epsilon that float32 does not hold": (
        LLAMA.replace("model.norm.weight", "{weight: model.norm.weight, eps: 1e300}"),
        "bad-value",
    ),
    "a cap that float32 rounds to nothing": (LLAMA + "  - logit_softcap: 1e-60\n", "bad-value"),
    "an embedding scaled for another width": (LLAMA.replace(ROPE, ROPE + "  - embed_scale: 64\n"), "bad-shape"),
    "streams joined along the batch": (
        LLAMA.replace(ROPE, ROPE + "  - store_stream: a\n  - join_streams: {names: [a, a], axis: 0}\n"),
        "bad-value",
    ),
    "a stream that brings the tokens back": (
        LLAMA.replace("  - gather_last_token\n", "  - store_stream: a\n  - gather_last_token\n  - add_stream: a\n"),
        "bad-shape",
    ),
    "kinds of tokens in place of tokens": (
        "inputs: {token_type_ids: 'int64[batch_size, sequence_length]'}" + LLAMA,
        "bad-value",
    ),
    "a state of the last token alone": (LLAMA.replace("  - lm_head", f"  - {DELTA}\n  - lm_head"), "bad-shape"),
}


@pytest.mark.parametrize(("text", "code"), TEXTS.values(), ids=TEXTS)
def test_what_makes_no_sense_is_refused(tmp_path: Path, text: str, code: str) -> None:
    assert text != LLAMA
    with pytest.raises(SpecError) as error:
        compile_text(tmp_path, text)
    assert {d.code for d in error.value.diagnostics} == {code}, error.value.render()


def test_a_rope_may_turn_a_part_of_each_head(tmp_path: Path) -> None:
    assert compile_text(tmp_path, LLAMA.replace("theta: 10000", "theta: 10000, rotary_dim: 8"), HEAD).graphs


WHOLE = {
    "positions by column": "column_positions: places\n  - gather_add: {weight: places, input: places, rows: 64}",
    "positions by ids": "positions_from_ids: 1\n  - gather_add: {weight: places, input: position_ids, rows: 64}",
    "attention to what comes": "vit_self_attn: {qkv: a.qkv.weight, out: a.out.weight}",
    "joint attention": "linear: {weight: a, out: 192}\n  - joint_attention\n  - linear: {weight: b, out: 32}",
    "pooled tokens": "attention_pool: {query: query, qkv: a.weight, out: b.weight}",
    "the first token": "cls_token_pool: first",
    "a pooled vector": "pool: {how: mean, output: pooled}",
    "tokens in front": "prepend_tokens: cls\n  - gather_last_token",
    "distances": "relative_bias: {weight: table, buckets: 8, max_distance: 16}",
}


@pytest.mark.parametrize("stage", WHOLE.values(), ids=WHOLE)
def test_a_graph_with_a_past_does_not_see_the_whole_sequence(tmp_path: Path, stage: str) -> None:
    text = LLAMA.replace("  - rms_norm", f"  - {stage}\n  - rms_norm")
    with pytest.raises(SpecError) as error:
        compile_text(tmp_path, text, graphs=("decode",))
    assert [d.code for d in error.value.diagnostics] == ["wrong-phase"], error.value.render()


ENCODER = """
flowc: 1
name: small
kind: encoder
weights: {random: 7}
"""
WORDS = "flow:\n  - embed: {weight: words, vocab: 61, hidden: 32}\n"
IMAGES = """inputs: {pixel_values: 'float32[batch_size, 1, 16, 16]'}
flow:
  - patch_embed: {weight: patches, patch: [4, 4], channels: 1, hidden: 32}
"""
ATTENTION = "  - vit_self_attn: {qkv: a.weight, out: b.weight, heads: 4, head_dim: 8}\n"
ENCODERS: dict[str, tuple[str, str]] = {
    "columns of an image": (
        f"{IMAGES}  - column_positions\n  - gather_add: {{weight: p, input: position_ids, rows: 64}}\n",
        "bad-shape",
    ),
    "the last token of an image": (f"{IMAGES}  - gather_last_token\n", "bad-shape"),
    "tokens that a rope does not know": (
        f"{WORDS}  - prepend_tokens: cls\n  - attn_mask\n  - rope_tables: {{theta: 100, head_dim: 8}}\n"
        + ATTENTION.replace("heads", "rope: rope, heads"),
        "bad-shape",
    ),
    "tokens that the mask does not know": (f"{WORDS}  - prepend_tokens: cls\n{ATTENTION}", "bad-shape"),
    "a pool of other tokens": (f"{WORDS}  - prepend_tokens: cls\n  - pool: mean\n", "bad-shape"),
    "a pooler of other tokens": (f"{WORDS}  - prepend_tokens: cls\n  - pooler: p.weight\n", "bad-shape"),
    "the last of other tokens": (f"{WORDS}  - prepend_tokens: cls\n  - gather_last_token\n", "bad-shape"),
    "a pool of one token": (f"{WORDS}  - gather_last_token\n  - pool: mean\n", "bad-shape"),
    "several tokens in one": (f"{WORDS}  - prepend_tokens: {{weight: c, flat: true, count: 3}}\n", "bad-value"),
}


@pytest.mark.parametrize(("text", "code"), ENCODERS.values(), ids=ENCODERS)
def test_an_encoder_of_other_tokens_is_refused(tmp_path: Path, text: str, code: str) -> None:
    with pytest.raises(SpecError) as error:
        compile_text(tmp_path, text, ENCODER)
    assert [d.code for d in error.value.diagnostics] == [code], error.value.render()


def test_a_mask_of_ones_fits_the_tokens_that_are_there(tmp_path: Path) -> None:
    text = f"{WORDS}  - prepend_tokens: cls\n  - attn_mask\n{ATTENTION}  - pool: mean\n"
    assert compile_text(tmp_path, text, ENCODER).graphs


def test_positions_are_those_of_the_mask_that_was_chosen_last(tmp_path: Path) -> None:
    turned = ATTENTION.replace("heads", "rope: rope, heads")
    text = f"{WORDS}  - rope_tables: {{theta: 100, head_dim: 8}}\n{turned}  - attn_mask\n{turned}"
    (graph,) = compile_text(tmp_path, text, ENCODER).expanded.values()
    positions = [node for node in graph.nodes if node.op.name == "positions"]
    assert len({node.inputs[1] for node in positions}) == 2
