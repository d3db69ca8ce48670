from __future__ import annotations

import functools
from pathlib import Path

import pytest

from flowc.build.compiled import Compiled, Request
from flowc.compile import compile_file
from flowc.errors import SpecError
from flowc.ir.canonical import difference
from flowc.ir.core.attention import AttentionMask
from flowc.ir.core.rope import RopeAngles
from flowc.lowering.lower import lower
from flowc.passes.pipeline import PIPELINE, pass_names
from flowc.targets.registry import target
from tests.oracle_io import ROOT
from tests.passes.making import LLAMA, apply_in, assert_close, compile_text, random_feeds, run, run_onnx

NAMES = [step.__name__ for step in PIPELINE]
TARGETS = ("ort-cpu", "portable")
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
RICH = LLAMA.replace(
    "llama_decoder: 'model.layers.{i}'", "gemma_decoder: {prefix: 'model.layers.{i}', style: gemma3, window: 3}"
)


@pytest.mark.parametrize(
    "left_out",
    [(), *((name,) for name in pass_names()), tuple(pass_names())],
    ids=lambda names: "+".join(names) or "none",
)
def test_any_pass_may_be_left_out(tmp_path: Path, left_out: tuple[str, ...]) -> None:
    for on in TARGETS:
        compiled = compile_text(tmp_path, RICH, target=on, skip_passes=left_out)
        for phase, graph in compiled.graphs.items():
            assert not set(left_out) & set(compiled.audits[phase])
            feeds = random_feeds(graph, 2, "ragged")
            want = run(compiled.expanded[phase], feeds, compiled)
            assert_close(run_onnx(graph, feeds, compiled, on), want, feeds["attention_mask"], 5e-5)


def test_a_pass_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="there is no pass 'fold_ropes'"):
        compile_text(tmp_path, LLAMA, skip_passes=("fold_ropes",))


@functools.cache
def compiled_example(example: Path, on: str, dtype: str = "float32") -> Compiled:
    return compile_file(example, Request(target=on, dtype=dtype))


every_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)


@every_example
def test_what_the_passes_leave_behind(example: Path) -> None:
    compiled = compiled_example(example, "ort-cpu")
    for phase, graph in compiled.graphs.items():
        kinds = [type(n.op) for n in graph.nodes]
        assert RopeAngles not in kinds, "no trigonometry at run time"
        masks = [(n.op, n.outputs[0].type) for n in graph.nodes if isinstance(n.op, AttentionMask)]
        assert len(masks) == len(set(masks)), "one mask for all layers that see the same"
        assert not any(
            isinstance(n.op, AttentionMask) and n.op.visibility.causal for n in graph.nodes if phase == "decode"
        )
        operators = {n.op_type for n in lower(graph, target("ort-cpu"), {"flowc.version": "test"}).model.graph}
        assert phase == "encode" or not operators & {"Cos", "Sin"}


@pytest.mark.parametrize("on", TARGETS)
@every_example
def test_a_pass_finds_nothing_to_do_twice(example: Path, on: str) -> None:
    compiled = compiled_example(example, on)
    for phase, graph in compiled.graphs.items():
        for step in PIPELINE:
            result = apply_in(step, graph, compiled.pass_context)
            assert result.audit.fired == [], (phase, step.__name__)
            assert difference(graph, result.after) == [], (phase, step.__name__)


def test_every_pass_finds_something_to_do_in_some_example() -> None:
    """What the test above says of a pass that never fires is nothing."""
    builds = [compiled_example(path, on) for path in EXAMPLES for on in TARGETS]
    builds.append(compiled_example(EXAMPLES[0], "portable", "float16"))
    audits = [audit for compiled in builds for audit in compiled.audits.values()]
    assert [name for name in NAMES if not any(audit[name].fired for audit in audits)] == []
