from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowc.compile import build
from flowc.ir.core.elementwise import Binary
from flowc.ir.core.layout import Split
from flowc.ir.core.linear import Linear
from flowc.ir.graph import constant, prune
from flowc.ir.phases import DECODE
from flowc.ir.weights.expressions import Concat, Rows, Tensor
from flowc.lowering.lower import lower
from flowc.passes.audit import Audit, Context
from flowc.passes.fuse_projections import fuse_projections
from flowc.targets.registry import target
from tests.passes.graphs import Maker, tokens
from tests.passes.making import LLAMA, apply, assert_close, compile_text, count, same_numbers

BIASED = LLAMA.replace(
    "llama_decoder: 'model.layers.{i}'", "llama_decoder: {prefix: 'model.layers.{i}', attention_bias: true}"
)


@pytest.mark.parametrize("text", [LLAMA, BIASED])
def test_projections_of_one_value_are_packed(tmp_path: Path, text: str) -> None:
    compiled = compile_text(tmp_path, text, graphs=("decode",))
    result = apply(fuse_projections, compiled.expanded["decode"])
    assert len(result.audit.fired) == 4  # q, k, v and gate, up of two layers
    assert count(result.after, Split) == 4
    assert count(result.before, Linear) - count(result.after, Linear) == 2 * (2 + 1)
    same_numbers(result, compiled)


@pytest.mark.parametrize(("phase", "on"), [("prefill", "ort-cpu"), ("unified", "ort-cpu"), ("decode", "portable")])
def test_only_where_it_pays(tmp_path: Path, phase: Any, on: str) -> None:
    compiled = compile_text(tmp_path, LLAMA)
    result = apply(fuse_projections, compiled.expanded[phase], on=on)
    assert result.after is result.before
    assert not result.audit.candidates


def test_weights_that_stay_where_they_lie_are_not_packed(tmp_path: Path) -> None:
    graph = compile_text(tmp_path, LLAMA).expanded["decode"]
    context = Context(target("ort-cpu"), "none", 64, in_place=True)
    assert fuse_projections(graph, context, Audit()) is graph
    assert compile_text(tmp_path, LLAMA, in_place=True).audits["decode"]["fuse_projections"].fired == []


def test_misses_say_why() -> None:
    make, x = Maker(), tokens(8)
    w = make.weight(8, 8)
    y = make(Binary("add"), make(Linear(), x, w), make(Linear(), x, make.weight(8, 8)))
    z = make(Binary("add"), make(Linear(), y, make.weight(8, 8), make.weight(8)), make(Linear(), y, make.weight(8, 8)))
    graph = replace(make.graph(x, z=make(Linear(), z, w)), phase=DECODE)
    result = apply(fuse_projections, graph)
    assert result.after is graph
    assert [why for _, why in result.audit.missed] == [
        "the weight of linear0.0 is read elsewhere too",
        "some of them have a bias, others none",
    ]


def test_graphs_that_pack_differently_share_their_bytes(tmp_path: Path) -> None:
    compiled = compile_text(tmp_path, LLAMA)
    kinds = {p: [type(w) for w in g.weights() if isinstance(w, (Concat, Tensor))] for p, g in compiled.graphs.items()}
    assert Concat in kinds["decode"]
    assert Concat not in kinds["prefill"]
    built = build(compiled, tmp_path / "model.onnx", verify="off")
    largest = {w.key: w.nbytes for g in compiled.graphs.values() for w in g.weights() if not isinstance(w, Concat)}
    size = built.manifest["data"][0]["bytes"]
    assert size <= sum(-(-n // 4096) * 4096 for n in largest.values())
    lowered = lower(compiled.graphs["prefill"], target("ort-cpu"), {"flowc.version": "test"})
    assert any("q_proj" in name for name in lowered.weights)


@pytest.mark.parametrize("in_place", [False, True])
def test_rows_of_one_weight_are_that_weight_again(in_place: bool) -> None:
    make, x = Maker(), tokens(8)
    whole = make.weight(12, 8).weight
    assert whole is not None
    parts = [make(Linear(), x, constant(Rows(whole, a, b))) for a, b in ((0, 4), (4, 8), (8, 12))]
    graph = replace(make.graph(x, y=make(Binary("mul"), make(Binary("add"), *parts[:2]), parts[2])), phase=DECODE)
    audit = Audit()
    after = prune(fuse_projections(graph, Context(target("ort-cpu"), "none", 64, in_place), audit))
    assert len(audit.fired) == 1
    assert [w.key for w in after.weights()] == [whole.key]
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 1, 8)).astype(np.float32)}
    assert_close(make.run(after, feeds), make.run(graph, feeds))


@pytest.mark.parametrize("rows", [((4, 8), (0, 4)), ((0, 4), (8, 12))])
def test_rows_out_of_order_are_joined_anew(rows: tuple[tuple[int, int], ...]) -> None:
    make, x = Maker(), tokens(8)
    whole = make.weight(12, 8).weight
    assert whole is not None
    parts = [make(Linear(), x, constant(Rows(whole, a, b))) for a, b in rows]
    graph = replace(make.graph(x, y=make(Binary("sub"), *parts)), phase=DECODE)
    result = apply(fuse_projections, graph)
    assert [type(w) for w in result.after.weights()] == [Concat]
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 1, 8)).astype(np.float32)}
    assert_close(make.run(result.after, feeds), make.run(graph, feeds))
    audit = Audit()
    assert fuse_projections(graph, Context(target("ort-cpu"), "none", 64, in_place=True), audit) is graph
    assert [why for _, why in audit.missed] == ["its weights are used where they lie"]
