"""Random flows of random shapes: the optimised graphs give the numbers of the unoptimised ones."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.passes.making import Array, assert_close, compile_text, run, run_onnx

DECODER = """
flowc: 1
name: random
model: {{hidden: {hidden}, layers: {layers}, heads: {heads}, kv_heads: {kv_heads}, head_dim: {head_dim}, ffn: {ffn},
  vocab: 23, norm_eps: 1e-5, context_length: 24}}
weights: {{random: {seed}}}
"""
ENCODER = """
flowc: 1
name: random
kind: encoder
model: {{hidden: {hidden}, layers: {layers}, heads: {heads}, head_dim: {head_dim}, ffn: {ffn}, vocab: 23,
  norm_eps: 1e-5, context_length: 24}}
weights: {{random: {seed}}}
inputs: {{input_ids: 'int64[batch_size, sequence_length]'}}
"""
ROPES = (
    "{theta: 10000}",
    "{theta: 700, rotary_dim: 4}",
    "{theta: 10000, type: linear, factor: 3.0}",
    "{theta: 10000, type: llama3, factor: 4.0, original_length: 8}",
    "{theta: 10000, type: yarn, factor: 2.0, original_length: 8}",
    "{theta: 10000, type: longrope, original_length: 6, short_factor: [%s], long_factor: [%s]}",
)
Draw = Callable[[st.SearchStrategy[Any]], Any]


def sizes(draw: Draw) -> dict[str, int]:
    """Sizes that fit together; heads of 8, 16 (which the fused kernels take) and of others."""
    kv_heads = draw(st.integers(1, 2))
    return {
        "hidden": draw(st.sampled_from((12, 24, 32))), "layers": draw(st.integers(1, 3)), "kv_heads": kv_heads,
        "heads": kv_heads * draw(st.integers(1, 3)), "head_dim": draw(st.sampled_from((4, 8, 12, 16))),
        "ffn": draw(st.sampled_from((5, 16))), "seed": draw(st.integers(0, 9)),
    }  # fmt: skip


def choice(draw: Draw, *texts: str) -> str:
    """One of some texts."""
    return draw(st.sampled_from(texts))


@st.composite
def decoders(draw: Draw) -> tuple[str, str]:
    """Head and flow of a decoder."""
    n = sizes(draw)
    half = n["head_dim"] // 2
    rope = draw(st.sampled_from(ROPES))
    if "longrope" in rope:
        rope %= (", ".join(str(1 + i / 8) for i in range(half)), ", ".join(str(2 + i / 4) for i in range(half)))
    window = f", window: {draw(st.sampled_from((1, 3, 30)))}" if draw(st.booleans()) else ""
    p = "prefix: 'model.layers.{i}'"
    attention = f"self_attn_prefill: {{prefix: 'model.layers.{{i}}.self_attn'{window}}}"
    layer = choice(
        draw,
        f"[llama_decoder: {{{p}{window}, attention_bias: {choice(draw, 'true', 'false')}}}]",
        f"[llama_kv_tap: {{{p}}}, llama_decoder: {{{p}{window}}}]",
        f"[llama_decoder: {{{p}{window}, rope: null}}]",
        f"[qwen3_decoder: {{{p}}}]",
        f"[gemma_decoder: {{{p}, style: gemma3{window}}}]",
        f"[gemma_decoder: {{{p}, style: gemma2, softcap: 5.0{window}}}]",
        f"[residual_save, rms_norm: 'norms.{{i}}.weight', {attention}, "
        "linear: {weight: 'o.{i}.weight', out: $hidden}, layer_scale: 'scales.{i}', residual_add, "
        "residual_save, swiglu: 'mlp.{i}', residual_add]",
    )
    scale = choice(draw, "", "  - embed_scale\n")
    head = choice(draw, "lm_head: {tied: true}", "lm_head: head.weight")
    cap = choice(draw, "", "  - logit_softcap: {cap: 4}\n")
    last = choice(draw, "  - gather_last_token\n", "")
    flow = (
        f"flow:\n  - embed: model.embed_tokens.weight\n{scale}  - rope_tables: {rope}\n"
        f"  - repeat: {{count: $layers, body: {layer}}}\n  - rms_norm: model.norm.weight\n{last}  - {head}\n{cap}"
    )
    return DECODER.format(**n), flow


@st.composite
def encoders(draw: Draw) -> tuple[str, str]:
    """Head and flow of an encoder that gives all tokens, or one vector."""
    n = sizes(draw)
    n["hidden"] = n["heads"] * n["head_dim"]
    layer = choice(
        draw,
        "bert_encoder_layer: {prefix: 'layers.{i}', activation: relu}",
        "modernbert_layer: {prefix: 'layers.{i}', reach: 2, attn_norm: true}",
        "nomic_encoder_layer: {prefix: 'layers.{i}'}",
    )
    end = choice(
        draw, "", "  - cls_token_pool\n", "  - pool: {how: mean}\n", "  - pool: {how: last}\n", "  - pooler: p.weight\n"
    )
    flow = (
        "flow:\n  - embed: embeddings.weight\n  - rope_tables: {theta: 1000}\n  - layer_norm: norm.weight\n"
        f"  - repeat: {{count: $layers, body: [{layer}]}}\n{end}"
    )
    return ENCODER.format(**n), flow


@st.composite
def masks(draw: Draw, batch: int, total: int, new: int) -> Array:
    """Any padding that leaves every row a token among its new ones."""
    mask = np.array(
        draw(st.lists(st.lists(st.integers(0, 1), min_size=total, max_size=total), min_size=batch, max_size=batch))
    )
    for row in mask:
        row[total - 1 - draw(st.integers(0, new - 1))] = 1
    return mask


def check(folder: Path, head: str, flow: str, draw: Draw, on: str) -> None:
    """Compare all graphs of a spec on random inputs."""
    compiled = compile_text(folder, flow, head, target=on)
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    for phase, graph in compiled.graphs.items():
        new = 1 if phase == "decode" else draw(st.integers(1, 5))
        batch, past = draw(st.integers(1, 3)), draw(st.integers(0, 4)) if phase in ("decode", "unified") else 0
        shape = {"batch_size": batch, "sequence_length": new, "past_sequence_length": past}
        feeds: dict[str, Array] = {}
        for value in compiled.expanded[phase].inputs:
            if value.name == "attention_mask":
                feeds[value.name] = draw(masks(batch, past + new, new))
            elif value.dtype == "int64":
                feeds[value.name] = rng.integers(0, 23, (batch, new))
            else:
                size = [d if isinstance(d, int) else shape[d] for d in value.shape]
                feeds[value.name] = rng.standard_normal(size).astype(np.float32)
        mask = feeds.get("attention_mask")
        want = specified(run(compiled.expanded[phase], feeds, compiled), mask, past)
        for results in (run(graph, feeds, compiled), run_onnx(graph, feeds, compiled, on)):
            assert_close(specified(results, mask, past), want, tolerance=1e-4)


def specified(results: dict[str, Array], mask: Array | None, past: int) -> dict[str, Array]:
    """The numbers that mean something: what stands at padding does not."""
    if mask is None:
        return results
    fresh = mask[:, past:]
    found: dict[str, Array] = {}
    for name, array in results.items():
        if name.startswith("present."):
            found[name] = array.swapaxes(1, 2)[mask != 0]
        else:
            found[name] = array[fresh != 0] if array.shape[:2] == fresh.shape else array
    return found


@settings(max_examples=40)
@given(st.data())
def test_decoders(data: st.DataObject) -> None:
    head, flow = data.draw(decoders())
    with tempfile.TemporaryDirectory() as folder:
        check(Path(folder), head, flow, data.draw, data.draw(st.sampled_from(("ort-cpu", "portable"))))


@settings(max_examples=25)
@given(st.data())
def test_encoders(data: st.DataObject) -> None:
    head, flow = data.draw(encoders())
    with tempfile.TemporaryDirectory() as folder:
        check(Path(folder), head, flow, data.draw, data.draw(st.sampled_from(("ort-cpu", "portable"))))
