"""An operator that nothing in flowc knows is costed, fed, drawn, rewritten, lowered, run and verified by its traits."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowc.build import manifest as manifests
from flowc.build.compiled import Compiled
from flowc.compile import build
from flowc.frontend import stage
from flowc.ir import op as operators
from flowc.ir.cost import Cost, costs
from flowc.ir.graph import Graph, Node
from flowc.ir.op import Op
from flowc.ir.traits import Types
from flowc.lowering import emitter
from flowc.report.drawing import draw
from flowc.verify.checks import Checks
from flowc.verify.full import verify
from flowc.verify.inputs import Feeder
from flowc.verify.rebuild import recompile
from tests.passes.making import assert_close, compile_text, random_feeds, run, run_onnx

HEAD = """
flowc: 1
name: toy
kind: encoder
model: {hidden: 32, vocab: 61, context_length: 64, norm_eps: 1e-5}
weights: {random: 7}
inputs:
  input_ids: int64[batch_size, sequence_length]
  attention_mask: int64[batch_size, sequence_length]
  speaker_ids: int64[batch_size, sequence_length]
"""
FLOW = """
flow:
  - embed: embeddings.weight
  - window_sum: {weight: speakers.weight, rows: 23, input: speaker_ids, window: 6}
  - embed_scale
  - layer_norm: norm.weight
"""
ROWS, WIDTH = 23, 32
Traits = Mapping[str, Any]


@pytest.fixture(scope="module")
def toy() -> Iterator[Any]:
    """The module with the operator, registered for these tests alone."""
    module = importlib.import_module("tests.ir.toy_operator")
    yield module
    del sys.modules[module.__name__]
    del operators.REGISTRY["window_sum"], stage.REGISTRY["window_sum"], emitter.EMITTERS[module.WindowSum]


def compiled(folder: Path, tail: str = "") -> Compiled:
    return compile_text(folder, FLOW + tail, HEAD)


def the_toy(graph: Graph, toy: Any) -> Node:
    (node,) = [n for n in graph.nodes if isinstance(n.op, toy.WindowSum)]
    return node


def judged(folder: Path, tail: str = "") -> Checks:
    """What the full verify says of a build."""
    build(compiled(folder, tail), folder / "model.onnx", verify="off")
    manifest = manifests.load(folder)
    return verify(manifest, recompile(manifest))


def drawn_ids(made: Compiled) -> set[int]:
    return set(Feeder(made).draw(64, 9, seed=3)["speaker_ids"].ravel().tolist())


def cost_of(made: Compiled) -> Cost:
    found = costs(made.expanded["encode"], {"batch_size": 2, "sequence_length": 5}).stages
    return next(cost for cost in found if cost.kind == "window_sum")


def no_windows(op: Op) -> tuple[int, ...]:
    return ()


def always(op: Op, types: Types) -> bool:
    return True


def test_it_is_costed(tmp_path: Path, toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = compiled(tmp_path)
    cost = cost_of(made)
    assert (cost.operators, cost.parameters, cost.macs) == (1, ROWS * WIDTH, 2 * 5 * 5 * WIDTH)
    assert cost.bytes_read == 2 * 5 * WIDTH * 4, "ten tokens read ten rows of the table"
    monkeypatch.setattr(toy.WindowSum, "tables", {})
    assert cost_of(made).bytes_read == ROWS * WIDTH * 4, "without the trait it reads the whole"


def test_it_is_fed(tmp_path: Path, toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert drawn_ids(compiled(tmp_path)) == set(range(ROWS))
    monkeypatch.setattr(toy.WindowSum, "tables", {})
    assert drawn_ids(compiled(tmp_path)) == {0, 1}, "without the trait its integers are taken for flags"


def test_it_is_drawn(tmp_path: Path, toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    graph = compiled(tmp_path).graphs["encode"]
    assert ("table", "sum of 6") in [(box.kind, box.text) for card in draw(graph).cards for box in card.boxes]
    monkeypatch.setattr(toy.WindowSum, "category", "mask")
    assert ("mask", "sum of 6") in [(box.kind, box.text) for card in draw(graph).cards for box in card.boxes]


@pytest.mark.parametrize("on", ["ort-cpu", "portable"])
@pytest.mark.parametrize("padding", ["left", "ragged"])
def test_it_is_lowered_and_run(tmp_path: Path, toy: Any, on: str, padding: str) -> None:
    made = compiled(tmp_path)
    feeds = random_feeds(made.graphs["encode"], padding=padding, sizes={"sequence_length": 11})
    feeds["speaker_ids"] %= ROWS
    want = run(made.expanded["encode"], feeds, made)
    assert_close(run_onnx(made.graphs["encode"], feeds, made, on), want, feeds["attention_mask"])


def test_passes_do_with_it_what_its_traits_allow(tmp_path: Path, toy: Any) -> None:
    made = compiled(tmp_path, "  - cls_token_pool")
    node, before = (the_toy(graphs["encode"], toy) for graphs in (made.graphs, made.expanded))
    scaled = node.weight("table")
    assert scaled is not None
    assert made.checkpoint is not None
    table = scaled.evaluate(made.checkpoint.read)
    sound = made.checkpoint.read("speakers.weight", None)
    np.testing.assert_allclose(table, sound * np.sqrt(np.float32(WIDTH)), rtol=1e-6)
    assert node.outputs[0].name == "embed_scale.scaled", "the scale behind it is gone"
    assert before.input("mask") is not None
    missed = made.audits["encode"]["hoist_token_selection"].missed
    assert [why for _, why in missed] == ["window_sum mixes tokens"]


def test_a_padding_mask_of_ones_is_left_out(tmp_path: Path, toy: Any) -> None:
    made = compile_text(tmp_path, FLOW.replace("flow:", "flow:\n  - attn_mask"), HEAD.replace(
        "  attention_mask: int64[batch_size, sequence_length]\n", ""
    ))  # fmt: skip
    assert the_toy(made.expanded["encode"], toy).input("mask") is not None
    assert len(the_toy(made.graphs["encode"], toy).inputs) == 3


def test_it_is_verified(tmp_path: Path, toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    checks = judged(tmp_path)
    assert not checks.failures
    assert any("of 6" in check.detail for check in checks.done), "an input is longer than its window"
    monkeypatch.setattr(toy.WindowSum, "windows", no_windows)
    assert not any("of 6" in check.detail for check in judged(tmp_path).done)


LIES: dict[str, tuple[Traits, str]] = {
    "it is an identity": ({"is_identity": always}, "pass drop_identities changes the numbers"),
    "its tokens do not mix": ({"tokenwise": ("x", "ids", "mask")}, "pass hoist_token_selection changes the numbers"),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_wrong_trait_is_found(tmp_path: Path, toy: Any, monkeypatch: pytest.MonkeyPatch, lie: str) -> None:
    traits, culprit = LIES[lie]
    for name, value in traits.items():
        monkeypatch.setattr(toy.WindowSum, name, value)
    failures = judged(tmp_path, "  - gather_last_token\n  - layer_norm: last.weight").failures
    assert {f.location.culprit for f in failures if f.location is not None} == {culprit}


def test_a_wrong_emitter_is_found(tmp_path: Path, toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def emit(e: emitter.Emitter, op: Any, node: Node) -> None:
        toy.window_sum(e, toy.WindowSum(op.window + 1), node)

    monkeypatch.setitem(emitter.EMITTERS, toy.WindowSum, emit)
    failures = judged(tmp_path).failures
    assert {f.location.operator for f in failures if f.location is not None} == {"window_sum"}
