from __future__ import annotations

import re
from pathlib import Path

from flowc.build.compiled import Request
from flowc.compile import compile_file
from flowc.ir.core.attention import Attention
from flowc.ir.core.token_positions import AllOnes
from flowc.ir.graph import Graph
from tests.oracle_io import ROOT


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
