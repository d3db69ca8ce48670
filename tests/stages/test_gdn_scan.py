"""The stage `gdn_scan` against HuggingFace's gated delta rule, and what it refuses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowc.errors import SpecError
from tests.oracle_io import case_folders
from tests.passes.making import Array, compile_text, run, run_onnx

SCAN = """
flowc: 1
name: scan
kind: decoder
weights: {{random: 0}}
output: out
inputs:
  query: float32[batch_size, sequence_length, {key_heads}, {key_dim}]
  key: float32[batch_size, sequence_length, {key_heads}, {key_dim}]
  value: float32[batch_size, sequence_length, {value_heads}, {value_dim}]
  g: float32[batch_size, sequence_length, {value_heads}]
  beta: float32[batch_size, sequence_length, {value_heads}]
flow:
  - store_stream: gdn.q
  - input: key
  - store_stream: gdn.k
  - input: value
  - store_stream: gdn.v
  - input: g
  - store_stream: gdn.g
  - input: beta
  - store_stream: gdn.beta
  - gdn_scan: {{key_heads: {key_heads}, value_heads: {value_heads}, carry: true, layer: 0{more}}}
"""
NAMES = ("query", "key", "value", "g", "beta")
STATE = "past_key_values.0.recurrent_state"


def oracle() -> dict[str, Array]:
    return dict(np.load(case_folders()["gdn_scan"] / "ref.npz"))


def spec(arrays: dict[str, Array], more: str = "") -> str:
    key_heads, key_dim = arrays["query"].shape[2:]
    value_heads, value_dim = arrays["value"].shape[2:]
    return SCAN.format(
        key_heads=key_heads, key_dim=key_dim, value_heads=value_heads, value_dim=value_dim, more=more
    )  # fmt: skip


@pytest.mark.parametrize("way", ["interpreter", "ort-cpu", "portable"])
@pytest.mark.parametrize("scenario", ["a", "b", "c", "d"])
def test_equals_huggingface(tmp_path: Path, scenario: str, way: str) -> None:
    arrays = {k.split("/")[1]: v for k, v in oracle().items() if k.startswith(f"{scenario}/")}
    more = ", qk_norm_eps: 1e-6" if arrays["use_qk_l2norm"] else ""
    compiled = compile_text(tmp_path, "", spec(arrays, more))
    batch, length = arrays["g"].shape[:2]
    feeds: dict[str, Array] = {name: arrays[name] for name in NAMES}
    feeds["attention_mask"] = np.ones((batch, length), np.int64)
    cases: list[tuple[Any, str, dict[str, Array]]] = [("prefill", "", feeds)]
    cases.append(("unified", "_carry", {**feeds, STATE: arrays["initial_state"]}))
    for phase, suffix, given in cases:
        graphs = compiled.expanded if way == "interpreter" else compiled.graphs
        got = run(graphs[phase], given, compiled) if way == "interpreter" else run_onnx(
            graphs[phase], given, compiled, way)  # fmt: skip
        np.testing.assert_allclose(got["out"], arrays[f"out{suffix}"], atol=2e-5, rtol=1e-5)
        state = got["present.0.recurrent_state"]
        np.testing.assert_allclose(state, arrays[f"final_state{suffix}"], atol=2e-5, rtol=1e-5)


def refused(tmp_path: Path, text: str) -> set[str]:
    with pytest.raises(SpecError) as caught:
        compile_text(tmp_path, "", text)
    return {d.code for d in caught.value.diagnostics}


def small() -> str:
    shape = (1, 1, 2, 4)
    return spec({"query": np.zeros(shape, np.float32), "value": np.zeros(shape, np.float32)})


def test_a_slot_that_nothing_wrote_is_an_error(tmp_path: Path) -> None:
    assert refused(tmp_path, small().replace("  - store_stream: gdn.k\n", "")) == {"undefined-slot"}


def test_a_carried_state_needs_its_index(tmp_path: Path) -> None:
    assert refused(tmp_path, small().replace(", layer: 0", "")) == {"missing-field"}


def test_an_encoder_carries_no_state(tmp_path: Path) -> None:
    assert refused(tmp_path, small().replace("kind: decoder", "kind: encoder")) == {"wrong-phase"}


def test_heads_that_do_not_fit_are_an_error(tmp_path: Path) -> None:
    assert refused(tmp_path, small().replace("value_heads: 2, carry", "value_heads: 4, carry")) == {"bad-shape"}


@pytest.mark.parametrize("more", ["", ", qk_norm_eps: 1e-6"])
def test_more_heads_than_channels_is_an_error(tmp_path: Path, more: str) -> None:
    text = small().replace("key_heads: 2, value_heads: 2, carry", f"key_heads: 40, value_heads: 40{more}, carry")
    assert refused(tmp_path, text) == {"bad-shape"}


def test_without_carry_no_state_leaves_the_call(tmp_path: Path) -> None:
    text = small().replace("carry: true, layer: 0", "carry: false")
    compiled = compile_text(tmp_path, "", text, graphs=("prefill",))
    assert all([o.name for o in graph.outputs] == ["out"] for graph in compiled.graphs.values())
    assert refused(tmp_path, text) == {"wrong-phase"}
