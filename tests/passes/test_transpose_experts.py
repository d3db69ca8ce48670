from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowc.ir.core.experts import Experts
from flowc.ir.kernel.experts import ExpertLoop
from flowc.passes.transpose_experts import transpose_experts
from flowc.weights.random import RandomCheckpoint
from tests.kernel_level import at_kernel_level
from tests.passes.making import Array, apply, assert_close, compile_text, random_feeds, run, run_onnx, same_numbers

SPEC = """
flowc: 1
name: small
model: {hidden: 32, vocab: 61, context_length: 64}
weights: {random: 7}
kind: decoder
flow:
  - embed: model.embed_tokens.weight
  - moe: {prefix: mlp, experts: 5, top: TOP, moe_ffn: 12, renormalise: true, activation: silu}
  - gather_last_token
  - lm_head: {tied: true}
"""


def text(top: int = 2, renormalise: bool = True, activation: str = "silu", more: str = "") -> str:
    fields = f"top: {top}, moe_ffn: 12, renormalise: {str(renormalise).lower()}, activation: {activation}{more}"
    return SPEC.replace("top: TOP, moe_ffn: 12, renormalise: true, activation: silu", fields)


@pytest.mark.parametrize("phase", ["prefill", "decode", "unified"])
@pytest.mark.parametrize(("on", "activation", "fires"), [
    ("ort-cpu", "silu", False),
    ("ort-cpu", "gelu_tanh", True),
    ("portable", "silu", True),
])  # fmt: skip
def test_weights_are_turned_where_no_operator_takes_them(
    tmp_path: Path, phase: Any, on: str, activation: str, fires: bool
) -> None:
    compiled = compile_text(tmp_path, text(activation=activation), "", graphs=(phase,))
    result = apply(transpose_experts, at_kernel_level(compiled.expanded[phase], on), on=on)
    (op,) = (n.op for n in result.after.nodes if isinstance(n.op, Experts))
    assert (isinstance(op, ExpertLoop) and op.transposed) == fires
    assert len(result.audit.fired) == fires
    same_numbers(result, compiled, on=on)


@pytest.mark.parametrize("top", [1, 3, 5])
@pytest.mark.parametrize("renormalise", [True, False])
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("on", ["ort-cpu", "portable"])
@pytest.mark.parametrize("phase", ["decode", "unified"])
def test_every_target_computes_what_the_operator_means(
    tmp_path: Path, phase: Any, on: str, fused: bool, renormalise: bool, top: int
) -> None:
    """Also without the pass, and with a shared expert beside the routed ones."""
    spec = text(top, renormalise, more=", shared_ffn: 7" + (", fused: true" if fused else ""))
    compiled = compile_text(tmp_path, spec, "", graphs=(phase,))
    graph = compiled.expanded[phase]
    feeds = random_feeds(graph, seed=top, padding="none")
    want = run(graph, feeds, compiled)
    assert np.ptp(want["logits"]) > 1e-2
    assert_close(run_onnx(graph, feeds, compiled, on), want)
    turned = apply(transpose_experts, at_kernel_level(graph, on), on=on).after
    assert_close(run_onnx(turned, feeds, compiled, on), want)


@pytest.mark.parametrize("on", ["ort-cpu", "portable"])
def test_a_chosen_expert_may_have_no_weight_at_all(tmp_path: Path, on: str) -> None:
    """The router is so sure that the second weight underflows."""

    class Sure(RandomCheckpoint):
        def read(self, name: str, rows: slice | None = None) -> Array:
            values = super().read(name, rows)
            return values * np.float32(3e4) if name == "mlp.gate.weight" else values

    compiled = compile_text(tmp_path, text(top=3), "", graphs=("unified",))
    compiled.checkpoint = Sure(7)
    for name, (shape, _) in compiled.usage.tensors.items():
        compiled.checkpoint.declare(name, shape)
    graph = apply(transpose_experts, at_kernel_level(compiled.expanded["unified"], on), on=on).after
    feeds = random_feeds(graph, padding="none")
    words = compiled.checkpoint.read("model.embed_tokens.weight")[feeds["input_ids"]]
    scores = np.sort(words @ compiled.checkpoint.read("mlp.gate.weight").T, axis=-1)
    assert np.exp(scores[..., -3] - scores[..., -1]).min() == 0
    assert_close(run_onnx(graph, feeds, compiled, on), run(graph, feeds, compiled))


@pytest.mark.parametrize("renormalise", [True, False])
def test_the_operator_is_a_sum_over_chosen_experts(renormalise: bool) -> None:
    rng = np.random.default_rng(5)
    x, scores = rng.standard_normal((2, 3, 4)), rng.standard_normal((2, 3, 6)) * 2
    gate, up, down = rng.standard_normal((6, 5, 4)), rng.standard_normal((6, 5, 4)), rng.standard_normal((6, 4, 5))
    both = np.empty((6, 10, 4))
    both[:, 0::2], both[:, 1::2] = gate, up
    (got,) = Experts(2, renormalise).reference(x, scores, both, down)
    (transposed,) = ExpertLoop(2, renormalise, transposed=True).reference(
        x, scores, both.swapaxes(1, 2), down.swapaxes(1, 2)
    )
    for b in range(2):
        for s in range(3):
            odds = np.exp(scores[b, s]) / np.exp(scores[b, s]).sum()
            best = sorted(range(6), key=lambda e: -odds[e])[:2]
            whole = sum(odds[e] for e in best) if renormalise else 1.0
            want = np.zeros(4)
            for e in best:
                h = gate[e] @ x[b, s]
                want += odds[e] / whole * (down[e] @ (h / (1 + np.exp(-h)) * (up[e] @ x[b, s])))
            np.testing.assert_allclose(got[b, s], want, rtol=1e-10)
            np.testing.assert_allclose(transposed[b, s], want, rtol=1e-10)
