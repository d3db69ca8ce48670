"""The vision examples build and verify, and onnxruntime gives what the interpreter gives."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

from flowc.build.compiled import Request
from flowc.compile import build, compile_file
from flowc.ir.core.attention import Attention
from flowc.ir.core.token_positions import AllOnes
from flowc.ir.graph import Graph
from flowc.ir.interpret import interpret
from tests.oracle_io import ROOT
from tests.parity.harness import Model

EXAMPLES = ("vit", "dinov2", "dinov3", "clip-vision", "siglip-vision", "nomic-vision")


@pytest.mark.parametrize("target", ["ort-cpu", "portable"])
@pytest.mark.parametrize("example", EXAMPLES)
def test_example_computes_what_it_says(example: str, target: str, tmp_path: Path) -> None:
    compiled = compile_file(ROOT / "examples" / f"{example}.yaml", Request(target=target))
    build(compiled, tmp_path / "model.onnx", verify="quick")
    graph, checkpoint = compiled.expanded["encode"], compiled.checkpoint
    assert checkpoint is not None
    assert [v.name for v in graph.inputs] == ["pixel_values"]
    sizes = {"batch_size": 3, "height": 20, "width": 33}
    shape = [d if isinstance(d, int) else sizes[d] for d in graph.inputs[0].shape]
    feeds = {"pixel_values": np.random.default_rng(3).standard_normal(shape).astype(np.float32)}
    want = interpret(graph, feeds, checkpoint.read)
    got = Model(compiled, tmp_path).run("encode", feeds)
    assert got.keys() == want.keys()
    for name, reference in want.items():
        assert np.ptp(reference) > 1e-3, f"{name} is the same everywhere"
        np.testing.assert_allclose(got[name], reference, rtol=1e-5, atol=2e-5, err_msg=name)


def test_a_mask_of_ones_costs_nothing(tmp_path: Path) -> None:
    """With the stage `attn_mask`, which the seed's flows need, the graph is what it is without."""
    text = (ROOT / "examples" / "dinov2.yaml").read_text()
    graphs: list[Graph] = []
    for name, changed in (("with", text), ("without", re.sub(r" +- attn_mask.*\n", "", text))):
        (tmp_path / f"{name}.yaml").write_text(changed)
        compiled = compile_file(tmp_path / f"{name}.yaml", Request())
        graphs.append(compiled.graphs["encode"])
        before = sum(isinstance(node.op, AllOnes) for node in compiled.expanded["encode"].nodes)
        assert before == (name == "with")
    for graph in graphs:
        assert not any(isinstance(node.op, AllOnes) for node in graph.nodes)
        seen = [node for node in graph.nodes if isinstance(node.op, Attention)]
        assert seen
        assert all(node.input("key_mask") is None and node.input("mask") is None for node in seen)
    first, second = ([(type(n.op), [str(o.type) for o in n.outputs]) for n in graph.nodes] for graph in graphs)
    assert first == second
