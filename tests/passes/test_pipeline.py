from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from flowc.build.compiled import Request
from flowc.compile import compile_file
from flowc.errors import SpecError
from flowc.ir.core.attention import Attention, AttentionMask
from flowc.ir.core.rope import RopeAngles
from flowc.ir.graph import Graph
from flowc.lowering.lower import lower
from flowc.passes.pipeline import PIPELINE
from flowc.targets.registry import target
from tests.oracle_io import ROOT
from tests.passes.making import LLAMA, apply, assert_close, compile_text, random_feeds, run, run_onnx

NAMES = [step.__name__ for step in PIPELINE]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
RICH = LLAMA.replace(
    "llama_decoder: 'model.layers.{i}'", "gemma_decoder: {prefix: 'model.layers.{i}', style: gemma3, window: 3}"
)


@pytest.mark.parametrize(
    "left_out", [(), *((name,) for name in NAMES), tuple(NAMES)], ids=lambda names: "+".join(names) or "none"
)
def test_any_pass_may_be_left_out(tmp_path: Path, left_out: tuple[str, ...]) -> None:
    for on in ("ort-cpu", "portable"):
        compiled = compile_text(tmp_path, RICH, target=on, skip_passes=left_out)
        for phase, graph in compiled.graphs.items():
            assert not set(left_out) & set(compiled.audits[phase])
            feeds = random_feeds(graph, 2, "ragged")
            want = run(compiled.expanded[phase], feeds, compiled)
            assert_close(run_onnx(graph, feeds, compiled, on), want, feeds["attention_mask"], 5e-5)


def test_a_pass_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="there is no pass 'fold_ropes'"):
        compile_text(tmp_path, LLAMA, skip_passes=("fold_ropes",))


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_what_the_passes_leave_behind(example: Path) -> None:
    compiled = compile_file(example, Request())
    for phase, graph in compiled.graphs.items():
        kinds = [type(n.op) for n in graph.nodes]
        assert RopeAngles not in kinds, "no trigonometry at run time"
        assert kinds.count(AttentionMask) <= len(windows(compiled.expanded[phase])), "one mask per window"
        causal = [n.op.visibility.causal for n in graph.nodes if isinstance(n.op, AttentionMask)]
        assert phase != "decode" or not any(causal)
        operators = {n.op_type for n in lower(graph, target("ort-cpu"), {"flowc.version": "test"}).model.graph}
        assert phase == "encode" or not operators & {"Cos", "Sin"}


def windows(graph: Graph) -> set[Any]:
    """Distinct facts of what hides keys; a layer cut to one token has its own."""
    found: set[Any] = set()
    for node in graph.nodes:
        if isinstance(node.op, Attention):
            found.add(node.op.visibility)
    return found | {"last token"}


@pytest.mark.parametrize("step", PIPELINE, ids=lambda step: step.__name__)
def test_a_pass_finds_nothing_to_do_twice(tmp_path: Path, step: Any) -> None:
    for phase, graph in compile_text(tmp_path, RICH).graphs.items():
        before = len(graph.nodes)
        assert len(apply(step, graph).after.nodes) <= before, phase
