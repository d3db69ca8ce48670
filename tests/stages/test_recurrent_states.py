"""Recurrent states under every kind of padding: a row of a batch gives what the same row gives alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowc.build.compiled import Compiled
from tests.passes.making import Array, compile_text, run, run_onnx

HYBRID = """
flowc: 1
name: hybrid
model: {hidden: 24, layers: 2, heads: 2, kv_heads: 1, head_dim: 8, vocab: 61, norm_eps: 1e-2, key_heads: 2,
  value_heads: 4, key_dim: 6, value_dim: 5, conv_kernel: 4, context_length: 64}
weights: {random: 3}
flow:
  - embed: model.embed_tokens.weight
  - gated_delta_net: model.layers.0.linear_attn
  - rope_tables: {theta: 10000, rotary_dim: 4}
  - gated_attention: model.layers.1.self_attn
  - gated_delta_net: {prefix: model.layers.2.linear_attn, grouped: true}
  - rms_norm: model.norm.weight
  - lm_head: {tied: true}
"""
WAYS = ("interpreter", "ort-cpu", "portable")
STATES = ("conv_state", "recurrent_state")
TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def hybrid(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return compile_text(tmp_path_factory.mktemp("hybrid"), "", HYBRID, "hybrid")


def call(compiled: Compiled, way: str, phase: Any, ids: Array, mask: Array, past: dict[str, Array]) -> dict[str, Array]:
    feeds = {"input_ids": ids, "attention_mask": mask, **past}
    if way == "interpreter":
        return run(compiled.expanded[phase], feeds, compiled)
    return run_onnx(compiled.graphs[phase], feeds, compiled, way)


def as_past(results: dict[str, Array]) -> dict[str, Array]:
    return {n.replace("present.", "past_key_values."): v for n, v in results.items() if n.startswith("present.")}


def states(results: dict[str, Array]) -> dict[str, Array]:
    found = {n: v for n, v in results.items() if n.endswith(STATES)}
    assert found, "no state leaves this call"
    return found


def play(
    compiled: Compiled, way: str, rows: list[tuple[list[int], list[int]]], cuts: list[int]
) -> list[dict[str, Array]]:
    """Rows of (ids, mask) in calls that end at the cuts: prefill, then unified or, for one token, decode."""
    ids, mask = (np.array([row[part] for row in rows], np.int64) for part in (0, 1))
    results: list[dict[str, Array]] = []
    for start, stop in zip([0, *cuts[:-1]], cuts, strict=True):
        phase = "prefill" if start == 0 else ("decode" if stop - start == 1 else "unified")
        past = as_past(results[-1]) if results else {}
        results.append(call(compiled, way, phase, ids[:, start:stop], mask[:, :stop], past))
    return results


MASKS = {
    "left": [0, 0, 0, 1, 1, 1, 1, 1, 1, 1],
    "right": [1, 1, 0, 0, 0, 1, 1, 1, 1, 1],
    "inside": [1, 0, 1, 0, 1, 0, 1, 1, 0, 1],
    "between past and new": [1, 1, 1, 1, 1, 0, 0, 1, 1, 1],
    "ends masked": [0, 1, 1, 1, 1, 1, 1, 1, 0, 0],
    "shorter than the kernel": [0, 0, 0, 0, 1, 0, 0, 0, 0, 1],
    "starts late": [0, 0, 0, 0, 0, 0, 1, 1, 1, 1],
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("cuts", [[5, 8, 9, 10], [1, 2, 10], [10]], ids=str)
def test_a_row_gives_what_it_gives_alone(hybrid: Compiled, way: str, cuts: list[int]) -> None:
    rng = np.random.default_rng(5)
    rows = [(rng.integers(0, 61, 10).tolist(), mask) for mask in MASKS.values()]
    batch = play(hybrid, way, rows, cuts)
    for index, (name, mask) in enumerate(MASKS.items()):
        ids = [token for token, kept in zip(rows[index][0], mask, strict=True) if kept]
        (alone,) = play(hybrid, way, [(ids, [1] * len(ids))], [len(ids)])
        for state, value in states(alone).items():
            np.testing.assert_allclose(
                batch[-1][state][index], value[0], atol=TOLERANCE, rtol=0, err_msg=f"{name} {state}"
            )
        found = np.concatenate([result["logits"][index] for result in batch])[np.array(mask, bool)]
        np.testing.assert_allclose(found, alone["logits"][0], atol=5 * TOLERANCE, rtol=0, err_msg=name)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("new", [1, 3])
def test_a_row_whose_new_tokens_are_all_masked_keeps_its_state(hybrid: Compiled, way: str, new: int) -> None:
    rng = np.random.default_rng(6)
    ids = rng.integers(0, 61, (2, 5 + new))
    mask = np.ones_like(ids)
    mask[1, 5:] = 0
    first = call(hybrid, way, "prefill", ids[:, :5], mask[:, :5], {})
    after = call(hybrid, way, "decode" if new == 1 else "unified", ids[:, 5:], mask, as_past(first))
    assert all(np.isfinite(v).all() for v in after.values())
    assert len(states(first)) == 4
    for name, value in states(first).items():
        assert np.array_equal(after[name][1], value[1]), name
        assert not np.array_equal(after[name][0], value[0]), name


@pytest.mark.parametrize("way", WAYS)
def test_a_prompt_that_is_all_padding_leaves_an_empty_state(hybrid: Compiled, way: str) -> None:
    mask = np.array([[1, 1, 1], [0, 0, 0]])
    found = states(call(hybrid, way, "prefill", np.array([[1, 2, 3], [4, 5, 6]]), mask, {}))
    assert all(np.array_equal(v[1], np.zeros_like(v[1])) and v[0].any() for v in found.values())


@pytest.mark.parametrize("on", ["ort-cpu", "portable"])
def test_without_a_mask_nothing_is_padding(tmp_path: Path, on: str) -> None:
    compiled = compile_text(tmp_path, "", HYBRID, assume="no-padding", target=on)
    plain = compile_text(tmp_path, "", HYBRID, target=on)
    ids = np.random.default_rng(8).integers(0, 61, (2, 9))
    past: dict[str, Array] = {}
    for start, stop, phase in ((0, 4, "prefill"), (4, 5, "decode"), (5, 9, "unified")):
        feeds = {"input_ids": ids[:, start:stop], **past}
        got = run_onnx(compiled.graphs[phase], feeds, compiled, on)
        want = call(plain, "interpreter", phase, ids[:, start:stop], np.ones((2, stop), np.int64), past)
        assert got.keys() == want.keys()
        for name, value in want.items():
            np.testing.assert_allclose(got[name], value, atol=1e-4, rtol=0, err_msg=f"{phase} {name}")
        past = as_past(got)
