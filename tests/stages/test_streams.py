"""Streams, and two of them that meet in the middle of a block."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowc.build.compiled import Compiled
from flowc.errors import SpecError
from tests.passes.making import Array, compile_text, run, run_onnx

HEAD = """
flowc: 1
name: streams
kind: encoder
weights: {random: 5}
output: y
inputs:
  a: float32[batch_size, length_a, 4]
  b: float32[batch_size, length_b, 4]
  gate: float32[batch_size, 4]
flow:
  - store_stream: a
  - input: b
  - store_stream: b
  - input: gate
  - store_stream: gate
"""
RNG = np.random.default_rng(4)
FEEDS: dict[str, Array] = {
    "a": RNG.standard_normal((2, 3, 4)).astype(np.float32),
    "b": RNG.standard_normal((2, 5, 4)).astype(np.float32),
    "gate": RNG.standard_normal((2, 4)).astype(np.float32),
}


def both(tmp_path: Path, flow: str, on: str = "ort-cpu") -> tuple[Compiled, dict[str, Array]]:
    """Results by the interpreter, which onnxruntime must give too."""
    made = compile_text(tmp_path, flow, HEAD, "streams", target=on)
    feeds = {v.name: FEEDS[v.name] for v in made.expanded["encode"].inputs}
    meant = run(made.expanded["encode"], feeds, made)
    for name, array in run_onnx(made.graphs["encode"], feeds, made, on).items():
        np.testing.assert_allclose(array, meant[name], atol=1e-6, rtol=1e-6)
    return made, meant


def codes(tmp_path: Path, flow: str) -> list[str]:
    with pytest.raises(SpecError) as caught:
        compile_text(tmp_path, flow, HEAD, "streams")
    return [d.code for d in caught.value.diagnostics]


DUAL = """
  - load_stream: gate
  - dual_stream:
      a: a
      b: b
      before_a: [scale_by_stream: gate]
      before_b: [linear: {weight: w, out: 4}]
      joint: [linear: {weight: m, out: 4}, store_stream: both]
      after_a: [add_stream: a]
      after_b: [add_stream: b, linear: {weight: v, out: 4}]
  - add_stream: gate
  - output: active
  - load_stream: a
  - output: new_a
  - load_stream: both
  - output: both
  - load_stream: b
"""


@pytest.mark.parametrize("on", ["ort-cpu", "portable"])
def test_two_streams_meet_and_part(tmp_path: Path, on: str) -> None:
    made, found = both(tmp_path, DUAL, on)
    assert made.checkpoint is not None
    w, m, v = (made.checkpoint.read(n, None) for n in "wmv")
    a, b, gate = FEEDS["a"], FEEDS["b"], FEEDS["gate"]
    joint = np.concatenate([a * gate[:, None], b @ w.T], axis=1) @ m.T
    np.testing.assert_allclose(found["both"], joint, atol=1e-5)
    np.testing.assert_allclose(found["new_a"], joint[:, :3] + a, atol=1e-5)
    np.testing.assert_allclose(found["y"], (joint[:, 3:] + b) @ v.T, atol=1e-5)
    np.testing.assert_allclose(found["active"], 2 * gate, atol=1e-6)


def test_without_a_joint_part_the_bodies_stay_apart(tmp_path: Path) -> None:
    flow = "  - dual_stream: {a: a, b: b, after_a: [scale_by_stream: gate], before_b: [add_stream: b]}\n"
    flow += "  - load_stream: b\n  - output: new_b\n  - load_stream: a\n"
    _, found = both(tmp_path, flow)
    np.testing.assert_allclose(found["new_b"], 2 * FEEDS["b"])
    np.testing.assert_allclose(found["y"], FEEDS["a"] * FEEDS["gate"][:, None])


def test_streams_join_along_sequence_and_channels_and_part_again(tmp_path: Path) -> None:
    flow = (
        "  - join_streams: [b, a]\n  - output: long\n  - part_like_stream: {name: a, end: last}\n  - store_stream: c\n"
    )
    flow += "  - load_stream: gate\n  - output: same_gate\n  - join_streams: {names: [a, c], axis: -1}\n"
    _, found = both(tmp_path, flow)
    np.testing.assert_array_equal(found["long"], np.concatenate([FEEDS["b"], FEEDS["a"]], axis=1))
    np.testing.assert_array_equal(found["y"], np.concatenate([FEEDS["a"]] * 2, axis=-1))


WRONG: dict[str, tuple[str, list[str]]] = {
    "an undefined stream": ("  - load_stream: c\n", ["undefined-slot"]),
    "a stream of another name": ("  - add_stream: gat\n", ["undefined-slot"]),
    "one stream twice": ("  - dual_stream: {a: a, b: a}\n", ["bad-value"]),
    "a body that is wrong": ("  - dual_stream: {a: a, b: b, before_b: [load_stream: c]}\n", ["undefined-slot"]),
    "widths that differ": (
        "  - dual_stream: {a: a, b: b, before_b: [linear: {weight: w, out: 3}], joint: [store_stream: c]}\n",
        ["bad-shape"],
    ),
    "an input that is not declared": ("  - input: c\n", ["undefined-input"]),
    "no streams to join": ("  - join_streams: []\n", ["bad-value"]),
    "lengths that differ": ("  - load_stream: a\n  - add_stream: b\n", ["bad-shape"]),
}


@pytest.mark.parametrize(("flow", "says"), WRONG.values(), ids=WRONG)
def test_what_does_not_fit_is_an_error_of_the_spec(tmp_path: Path, flow: str, says: list[str]) -> None:
    assert codes(tmp_path, flow + "  - load_stream: gate\n" + _use_all()) == says


def _use_all() -> str:
    return "  - load_stream: a\n  - output: a_again\n  - load_stream: b\n  - output: b_again\n  - load_stream: gate\n"


def test_a_body_is_a_list_of_stages(tmp_path: Path) -> None:
    text: Any = "  - dual_stream: {a: a, b: b, joint: zero_beta}\n"
    assert codes(tmp_path, text) == ["bad-value"]
