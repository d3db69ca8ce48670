"""Two levels: what a model means, and what a target runs. Each target's table has a kernel for every meaning."""

from __future__ import annotations

import inspect
from dataclasses import replace

import numpy as np
import onnx_ir
import pytest

import flowc.ir.core
from flowc.errors import InternalError, Source, Span, SpecError
from flowc.ir.core.attention import Attention
from flowc.ir.core.cast import Cast
from flowc.ir.core.elementwise import Scale
from flowc.ir.core.linear import Linear
from flowc.ir.core.norm import Norm
from flowc.ir.graph import Graph, Origin
from flowc.ir.kernel.matrix import Gemm
from flowc.ir.op import REGISTRY, Level, Op
from flowc.ir.phases import DECODE, PHASES, Phase
from flowc.ir.verify import verify
from flowc.ir.visibility import CAUSAL
from flowc.lowering.emitter import EMITTERS, Emitter
from flowc.passes.audit import Audit, Context
from flowc.passes.select_kernels import select_kernels
from flowc.targets.registry import TARGETS, target
from tests.kernel_level import at_kernel_level, lowered
from tests.passes.graphs import Maker, tokens
from tests.passes.making import ort

assert flowc.ir.core  # imported for the operators that it registers

MEANINGS = [op for op in REGISTRY.values() if "kernel" not in op.levels]
SPAN = Span(Source("model.yaml", "flow:\n  - linear: w\n"), 2, 5, 2, 11)


def placed(graph: Graph) -> Graph:
    """The graph as if its operators came from a stage of a spec."""
    origin = Origin("linear", "linear", SPAN)
    return replace(graph, nodes=tuple(replace(n, origin=origin) for n in graph.nodes))


def projection(op: Op) -> Graph:
    make, x = Maker(), tokens(4)
    return placed(make.graph(x, y=make(Scale(2.0), make(op, x, make.weight(4, 4)))))


def test_there_are_meanings_and_kernels() -> None:
    assert {op.name for op in MEANINGS} >= {"linear", "norm", "attention", "experts", "delta_scan", "causal_conv"}
    assert not [op for op in MEANINGS if op in EMITTERS], "a meaning has no emitter"
    assert all(op in EMITTERS for op in REGISTRY.values() if "kernel" in op.levels)


@pytest.mark.parametrize("on", TARGETS)
@pytest.mark.parametrize("phase", PHASES.values(), ids=str)
@pytest.mark.parametrize("op", MEANINGS, ids=lambda op: op.name)
def test_every_target_has_a_kernel_for_every_meaning(op: type[Op], phase: Phase, on: str) -> None:
    rows = list(target(on).rows(op, phase, "none"))
    assert rows
    assert all(issubclass(row.kernel, Op) and "core" not in row.kernel.levels for row in rows)
    assert all(row.evidence for row in rows)


@pytest.mark.parametrize(("level", "other", "op"), [("core", "kernel", Gemm()), ("kernel", "core", Linear())])
def test_a_mix_of_levels_is_refused_with_the_stages_line(level: Level, other: Level, op: Op) -> None:
    graph = projection(op)
    verify(graph, None, "a test")
    verify(graph, other, "a test")
    with pytest.raises(
        InternalError, match=rf"{op.name} of model.yaml:2:5 linear does not belong to the {level} level"
    ):
        verify(graph, level, "a test")


def test_a_level_is_looked_at_again_after_a_pass() -> None:
    """A pass that leaves a meaning behind is found, though the node was verified before."""
    graph = projection(Linear())
    verify(graph, "core", "a test")
    with pytest.raises(InternalError, match="kernel level"):
        verify(replace(graph, phase=DECODE), "kernel", "a pass", graph)


def test_an_emitter_knows_no_target() -> None:
    assert set(inspect.signature(Emitter).parameters) == {"graph"}


def half(dtype: str) -> tuple[Graph, Maker]:
    """Scale, Linear, Norm and Attention in another type, between casts from and to float32."""
    make, x = Maker(), tokens(8)
    weights = [make(Cast(dtype), make.weight(*shape)) for shape in ((8, 8), (8,), (8,))]
    y = make(Cast(dtype), x)
    y = make(Linear(), make(Scale(0.5), y), weights[0], weights[1])
    y = make(Norm("rms", 1e-5), y, weights[2])
    y = make(Norm("layer", 1e-5, groups=2), y)
    y = make(Attention(2, 2, 0.5, CAUSAL), y, y, y)
    return placed(make.graph(x, y=make(Cast("float32"), y))), make


@pytest.mark.parametrize("on", TARGETS)
def test_a_float16_graph_lowers_and_runs(on: str) -> None:
    graph, make = half("float16")
    verify(graph, "core", "a test")
    model = lowered(graph, on)
    feeds = {"x": np.random.default_rng(1).standard_normal((2, 5, 8)).astype(np.float32)}
    (want,) = make.run(graph, feeds).values()
    (meant,) = make.run(at_kernel_level(graph, on), feeds).values()
    for name, weight in model.weights.items():
        array = weight.evaluate(make.read)
        model.model.graph.initializers[name].const_value = onnx_ir.tensor(array, name=name)
    options = ort.SessionOptions()
    options.log_severity_level = 3
    (found,) = ort.InferenceSession(model.serialize(), options, ["CPUExecutionProvider"]).run(None, feeds)
    np.testing.assert_array_equal(meant, want)
    np.testing.assert_allclose(found, want, atol=4e-3)
    types = {v.type.dtype.name for n in model.model.graph for v in n.outputs if v.type is not None}
    assert "FLOAT16" in types


@pytest.mark.parametrize("on", ["ort-cpu"])
def test_a_type_that_a_target_does_not_compute_is_refused_with_every_line(on: str) -> None:
    with pytest.raises(SpecError) as refused:
        select_kernels(half("bfloat16")[0], Context(target(on), "none", None), Audit())
    text = str(refused.value)
    assert "error[unsupported-precision]" in text
    assert "model.yaml:2:5" in text
    assert "linear: the target 'ort-cpu' does not compute 'linear' in bfloat16" in text
    assert "'norm' in bfloat16" in text


def test_a_meaning_without_a_row_is_refused_with_its_line() -> None:
    bare = replace(target("portable"), name="bare", kernels=())
    with pytest.raises(SpecError, match="the target 'bare' has no kernel for 'linear' in float32"):
        select_kernels(projection(Linear()), Context(bare, "none", None), Audit())
