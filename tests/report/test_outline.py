"""Every line of the drawing is a value of the graph, in the order of the data; layers fold only when they are equal."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowc.build.compiled import Request
from flowc.compile import compile_file
from flowc.ir.graph import Graph
from flowc.report.drawing import draw
from flowc.report.outline import PREPARED, outline
from tests.oracle_io import ROOT

TINY = (ROOT / "examples/tiny-llama.yaml").read_text()
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))


def graphs_of(path: Path) -> list[Graph]:
    return list(compile_file(path, Request(), need_weights=False).graphs.values())


def graph_of(folder: Path, text: str, phase: str = "decode") -> Graph:
    path = folder / "model.yaml"
    path.write_text(text)
    return next(g for g in graphs_of(path) if g.phase.name == phase)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda p: p.stem)
def test_what_a_part_takes_is_what_a_part_above_it_makes(example: Path) -> None:
    for graph in graphs_of(example):
        parts = outline(graph)
        assert sum(len(p.nodes) * p.times for p in parts) == len(graph.nodes)
        inputs = {value.name for value in graph.inputs}
        above: set[str] = set()
        for part in parts:
            own = {value for node in part.nodes for value in node.outputs}
            read = {v for node in part.nodes for v in node.inputs if v is not None and v.weight is None}
            assert {entry.value for entry in part.entries} == read - own
            assert all(e.value.name in inputs or e.other.split(" or ")[0] in above for e in part.entries)
            above |= {part.label, part.last}
        drawn = draw(graph)
        ports = {box.port.name for card in drawn.cards for box in card.boxes if box.port is not None}
        last = {o.name for o in graph.outputs if not o.name.startswith("present.")}
        assert last <= ports


def test_kinds_of_ways() -> None:
    graph = next(g for g in graphs_of(ROOT / "examples/tiny-llama.yaml") if g.phase.name == "decode")
    parts = {part.label: part for part in outline(graph)}
    assert list(parts) == [PREPARED, "embed", "layers.0", "rms_norm", "lm_head"]
    layer = parts["layers.0"]
    assert {(e.name, e.kind) for e in layer.entries} == {
        ("gather", "stream"), ("position_ids", "shared"), ("checked_mask", "shared"), ("bias", "shared"),
        ("past_key_values.N.key", "cache"), ("past_key_values.N.value", "cache"),
    }  # fmt: skip
    assert {(e.name, e.kind) for e in layer.exits} == {("present.N.key", "cache"), ("present.N.value", "cache")}
    card = next(c for c in draw(graph).cards if c.part.label == "layers.0")
    assert sum(line.kind == "residual" for line in card.lines) == 2  # around attention, around the MLP


def test_a_value_that_passes_by_a_part_is_drawn_around_it() -> None:
    [graph] = graphs_of(ROOT / "examples/nomic-vision.yaml")
    entry = next(e for p in outline(graph) if p.label == "residual_add" for e in p.entries if e.kind == "residual")
    assert any(line.kind == "residual" and entry.value.name in line.tip for line in draw(graph).lines)


def test_equal_layers_are_drawn_once(tmp_path: Path) -> None:
    parts = outline(graph_of(tmp_path, TINY.replace("layers: 2", "layers: 30")))
    assert [(p.title, p.times) for p in parts if p.label.startswith("layers")] == [("layers.0 … 29", 30)]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("- llama_decoder: model.layers.{i}", "- llama_decoder: {prefix: 'model.layers.{i}', window: '$windows[i]'}"),
        ("- llama_decoder: model.layers.{i}", "- llama_decoder: {prefix: 'model.layers.{i}', ffn: '$widths[i]'}"),
        ("- llama_decoder: model.layers.{i}", "- llama_decoder: {prefix: 'model.layers.{i}', eps: '$epsilons[i]'}"),
    ],
    ids=["window", "width", "epsilon"],
)
def test_other_layers_are_drawn_apart(old: str, new: str, tmp_path: Path) -> None:
    name = new.partition("$")[2].partition("[")[0]
    values = {
        "windows": "[null, 16, null, null]",
        "widths": "[128, 96, 128, 128]",
        "epsilons": "[1e-5, 1e-6, 1e-5, 1e-5]",
    }
    text = TINY.replace("layers: 2\n", f"layers: 4\n  {name}: {values[name]}\n").replace(old, new)
    text = text.replace("  ffn: 128\n", "") if name == "widths" else text
    parts = outline(graph_of(tmp_path, text))
    assert [p.title for p in parts if p.label.startswith("layers")] == ["layers.0", "layers.1", "layers.2 … 3"]


def test_equal_operators_that_are_joined_otherwise_are_drawn_apart(tmp_path: Path) -> None:
    """A layer whose sum takes the value before its norm is not one whose sum takes the value after it."""
    before = "[residual_save, {rms_norm: 'model.layers.{i}.norm'}, residual_add]"
    after = "[{rms_norm: 'model.layers.{i}.norm'}, residual_save, residual_add]"
    text = f"""\
flowc: 1
kind: encoder
model: {{hidden: 8, vocab: 16, norm_eps: 1e-5, kinds: [a, a, b, b]}}
weights: {{random: 0}}
flow:
  - embed: embed.weight
  - repeat:
      count: 4
      body:
        - when: {{value: '$kinds[i]', equals: a, then: {before}, otherwise: {after}}}
  - rms_norm: norm.weight
"""
    parts = outline(graph_of(tmp_path, text, "encode"))
    assert [p.title for p in parts] == ["embed", "layers.0 … 1", "layers.2 … 3", "rms_norm"]
