"""Models of several components are checked component by component: sound ones pass, planted faults are named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from flowc.build import manifest as manifests
from flowc.compile import build
from flowc.errors import CheckFailed
from flowc.ir.core.cross_attention import CrossAttention
from flowc.ir.graph import Graph, Node, Rewriter, Value, rewrite
from flowc.ir.kernel.cross_attention import OnnxCrossAttention
from flowc.verify import full, quick
from flowc.verify.rebuild import recompile
from tests.cli.calling import flowc
from tests.encoder_decoder import SPEC, WEIGHTS, built_bart, compiled_bart

GRAPHS = {"encoder", "unified", "prefill", "decode"}


@pytest.mark.parametrize("asked", [
    {}, {"target": "portable"}, {"target": "portable-20"}, {"graphs": ("encoder",)}, {"graphs": ("prefill", "decode")},
    {"logits": "all"}, {"skip_passes": ("fold_masks", "hoist_token_selection")}, {"dtype": "float16"},
], ids=str)  # fmt: skip
def test_sound_builds_pass(asked: dict[str, Any], tmp_path: Path) -> None:
    compiled = compiled_bart(**asked)
    built = build(compiled, tmp_path / "model.onnx", check=quick.check)
    assert {c["graph"] for c in built.checks if c["name"] == "numbers"} == set(compiled.graphs)
    checks = full.verify(manifests.load(tmp_path), compiled)
    assert not checks.failures, checks.render()
    assert {c.graph for c in checks.done if c.name == "operators"} == set(compiled.graphs)


def test_rows_go_through_both_components_together(tmp_path: Path) -> None:
    checks = full.verify(manifests.load(built_bart(tmp_path) and tmp_path), compiled_bart())
    assert {c.graph for c in checks.done if c.name == "together" and c.passed} == {"decode", "unified"}


@pytest.mark.parametrize("at_hand", [True, False])
def test_the_command_checks_every_graph(at_hand: bool, tmp_path: Path) -> None:
    """With the original weights, or by what the data file holds."""
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(WEIGHTS.read_bytes())
    spec = tmp_path / "spec.yaml"
    spec.write_text(SPEC.read_text(encoding="utf-8").replace("random: 0", f"file: {weights.name}"), encoding="utf-8")
    assert flowc("build", spec, "-o", tmp_path / "out" / "model.onnx").code == 0
    told = flowc("verify", tmp_path / "out" / "model.onnx", "--json", *(["--weights", weights] if at_hand else []))
    assert told.code == 0, told.stderr
    assert ("the data file itself" in told.json()["reference"]) is not at_hand
    assert {c["graph"] for c in told.json()["checks"] if c["name"] == "numbers"} == GRAPHS


Change = Callable[[Node, Rewriter], tuple[Value, ...] | None]


def _other_values(node: Node, rewriter: Rewriter) -> tuple[Value, ...] | None:
    """Cross attention takes the keys for values."""
    if not isinstance(node.op, OnnxCrossAttention):
        return None
    return rewriter.remake(node, node.op, value=node.need("key"))


def _without_mask(node: Node, rewriter: Rewriter) -> tuple[Value, ...] | None:
    """Cross attention sees the padding of the encoder."""
    return rewriter.remake(node, node.op, mask=None) if isinstance(node.op, OnnxCrossAttention) else None


def _other_scale(node: Node, rewriter: Rewriter) -> tuple[Value, ...] | None:
    """Scores of cross attention are not scaled."""
    if not isinstance(node.op, OnnxCrossAttention):
        return None
    return rewriter.remake(node, replace(node.op, scale=1.0))


def _keys_of_the_other_layer(graph: Graph) -> Graph:
    """The encoder hands over the caches of its layers under each other's names."""
    names = {o.name: o.name.translate(str.maketrans("01", "10")) for o in graph.outputs if "encoder.key" in o.name}
    values = {o.name: o.value for o in graph.outputs}
    return replace(graph, outputs=tuple(replace(o, value=values[names.get(o.name, o.name)]) for o in graph.outputs))


FAULTS: dict[str, tuple[str, Callable[[Graph], Graph]]] = {
    "keys for values": ("cross_attention", lambda g: rewrite(g, _other_values)),
    "padding that is seen": ("cross_attention", lambda g: rewrite(g, _without_mask)),
    "no scale": ("cross_attention", lambda g: rewrite(g, _other_scale)),
    "layers exchanged": ("cross_keys_values", _keys_of_the_other_layer),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_cross_cache_is_caught(fault: str, tmp_path: Path) -> None:
    stage, plant = FAULTS[fault]
    compiled = compiled_bart()
    before = dict(compiled.graphs)
    compiled.graphs = {name: plant(graph) for name, graph in before.items()}
    assert any(compiled.graphs[name] is not before[name] for name in before)
    with pytest.raises(CheckFailed) as told:
        build(compiled, tmp_path / "model.onnx", check=quick.check)
    assert "wrong-numbers" in {d.code for d in told.value.diagnostics}
    build(compiled, tmp_path / "model.onnx", verify="off")
    manifest = manifests.load(tmp_path)
    failures = full.verify(manifest, recompile(manifest, WEIGHTS)).failures
    assert {"numbers", "operators"} & {c.name for c in failures}
    found = [c.location.stage for c in failures if c.location is not None]
    assert not found or any(stage in place for place in found)


def test_another_connection_in_the_manifest_is_caught(tmp_path: Path) -> None:
    built_bart(tmp_path)
    file = tmp_path / "model.flowc.json"
    facts = json.loads(file.read_text(encoding="utf-8"))
    takes = cast("dict[str, str]", facts["components"]["decoder"]["takes"])
    takes["past_key_values.0.encoder.key"] = "encoder.present.1.encoder.key"
    file.write_text(json.dumps(facts), encoding="utf-8")
    told = flowc("verify", tmp_path / "model.onnx", "--weights", WEIGHTS)
    assert told.code == 1
    assert "components.decoder.takes" in told.stderr + told.stdout


def test_core_and_kernel_are_two(tmp_path: Path) -> None:
    compiled = compiled_bart()
    assert [n.op.name for n in compiled.expanded["decode"].nodes if isinstance(n.op, CrossAttention)] == [
        "cross_attention"
    ] * 2
    masks = [n for n in compiled.graphs["decode"].nodes if n.op.name == "attention_mask"]
    assert len({n.need("mask") for n in masks}) == len(masks) == 2, "one for each padding mask, shared by all layers"
