"""Graphs for CUDA: the kernels that the table promises, and their numbers; onnxruntime's CPU provider runs float16."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowc.build.compiled import Compiled, Request
from flowc.compile import compile_file
from flowc.errors import SpecError
from flowc.frontend.state import Options
from flowc.ir.core.elementwise import Binary
from flowc.ir.core.norm import Norm
from flowc.ir.graph import Graph
from flowc.ir.kernel.attention import MultiHeadAttention
from flowc.ir.kernel.group_query import GroupQueryAttention, PackedGroupQueryAttention
from flowc.ir.kernel.skip_norm import SkipRmsNormalization
from flowc.ir.op import Op
from flowc.verify import quick
from tests.ir.running import lowered
from tests.kernel_level import at_kernel_level
from tests.oracle_io import Array
from tests.passes.graphs import Maker, tokens
from tests.passes.making import random_feeds, run, run_onnx

ROOT = Path(__file__).parents[2]
RNG = np.random.default_rng(3)
CLOSE = {"float32": 2e-5, "float16": 2e-2}
SIZES = {"height": 28, "width": 28, "image_sequence_length": 6, "text_sequence_length": 5}
MORE = {"bart", "flux-double-block"}
"""Examples whose inputs `random_feeds` does not draw: components, and two sequences in one."""

FAMILIES = sorted(p.stem for p in (ROOT / "examples").glob("*.yaml") if p.stem not in MORE)


def example(name: str, dtype: str, assume: Any = "none", cache: Any = None, target: str = "ort-cuda") -> Compiled:
    options = Options(assume, cache=cache)
    return compile_file(ROOT / f"examples/{name}.yaml", Request(target=target, dtype=dtype, options=options))


def kernels(graph: Graph) -> Counter[str]:
    return Counter(node.op.name for node in graph.nodes if "core" not in node.op.levels)


def floats(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_kernels_of_the_fused_form(dtype: str) -> None:
    graphs = example("tiny-llama", dtype, "right-padding").graphs
    for phase in ("prefill", "unified", "decode"):
        found = kernels(graphs[phase])
        assert found["packed_group_query_attention"] == 2
        assert found["skip_rms_normalization"] == 4
        assert found["rms_normalization"] == 1
        assert found["fused_mat_mul"] == 2 * (1 + 1 + 2 + 1) + 1, "q, k, v together; gate and up apart"
        assert not any(node.op.name == "rope" for node in graphs[phase].nodes), "the rope is inside"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_kernels_of_the_form_that_is_always_right(dtype: str) -> None:
    graphs = example("tiny-llama", dtype, cache="static").graphs
    assert kernels(graphs["prefill"])["onnx_attention"] == 2
    assert kernels(graphs["decode"])["group_query_attention"] == 2
    assert kernels(graphs["decode"])["mask_bias"] == 1
    assert graphs["decode"].facts["cache"] == "shared"


def test_there_is_no_float32_kernel_of_group_query_attention() -> None:
    for assume in ("none", "right-padding"):
        for graph in example("tiny-llama", "float32", assume).graphs.values():
            assert kernels(graph)["onnx_attention"] == 2
    with pytest.raises(SpecError, match="'ort-cuda' has no static cache in float32"):
        example("tiny-llama", "float32", cache="static")


def test_encoders_take_an_additive_bias() -> None:
    found = kernels(example("bert", "float16").graphs["encode"])
    assert found["multi_head_attention"] == 2
    assert found["mask_bias"] == 1, "one for all layers"


def test_what_has_no_kernel_in_a_type_runs_in_float32_between_casts() -> None:
    graph = example("qwen3.5", "bfloat16").graphs["prefill"]
    convolutions = [n for n in graph.nodes if n.op.name == "conv_tokens"]
    assert convolutions
    assert {v.dtype for n in convolutions for v in n.outputs} == {"float32"}
    halves = example("qwen3.5", "float16").graphs["prefill"]
    assert {v.dtype for n in halves.nodes if n.op.name == "conv_tokens" for v in n.outputs} == {"float16"}


@pytest.mark.parametrize(("dtype", "assume"), [("float32", "none"), ("float16", "none"), ("float16", "right-padding")])
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_computes_what_it_means(name: str, dtype: str, assume: str) -> None:
    single, compiled = example(name, "float32", target="portable"), example(name, dtype, assume)
    for phase, graph in compiled.graphs.items():
        rows = {"batch_size": 1} if graph.one_row_over_a_past else {}
        feeds = random_feeds(graph, padding="left" if assume == "none" else "none", sizes={**SIZES, **rows})
        feeds = {n: a.astype(np.float16).astype(np.float32) if a.dtype.kind == "f" else a for n, a in feeds.items()}
        types = {v.name: v.dtype for v in graph.inputs}
        typed = {n: a.astype(types[n]) for n, a in feeds.items()}
        want = run(single.expanded[phase], feeds, single)
        meant, found = run(graph, typed, compiled), run_onnx(graph, typed, compiled, "ort-cuda")
        mask = feeds.get("attention_mask")
        for port, array in want.items():
            if port.startswith("present."):
                continue
            valid = np.ones(1, bool)
            if mask is not None and array.shape[:2] == mask.shape:
                valid = (mask != 0).reshape(*mask.shape, *(1,) * (array.ndim - 2))
            size = np.abs(array).max()
            for what in (meant, found):
                # A router may choose otherwise where two experts are nearly as good.
                far = np.abs(np.where(valid, what[port].astype(np.float64) - array, 0))
                if dtype == "float16" and "moe" in name:
                    assert np.median(far) <= CLOSE[dtype] * size
                else:
                    assert far.max() <= CLOSE[dtype] * size, (phase, port)


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_a_sum_with_its_norm(dtype: Any) -> None:
    x, skip, gain = (a.astype(dtype) for a in (floats(2, 3, 8) * 4, floats(2, 3, 8), floats(8)))
    op = SkipRmsNormalization(1e-5)
    want = op.reference(x, skip, gain)
    total = x.astype(np.float64) + skip
    norm = total / np.sqrt((total**2).mean(-1, keepdims=True) + 1e-5) * gain
    for results in (want, lowered("ort-cuda", op, x, skip, gain)):
        np.testing.assert_allclose(results[0], norm, atol=1e-6 if dtype is np.float32 else 8e-3)
        np.testing.assert_allclose(results[1], total, atol=1e-6 if dtype is np.float32 else 8e-3)


@pytest.mark.parametrize("bias", [True, False])
def test_attention_of_an_encoder(bias: bool) -> None:
    q, k, v = floats(2, 4, 8), floats(2, 4, 8), floats(2, 4, 8)
    added = (np.where(RNG.random((2, 1, 4, 4)) < 0.3, -1e30, 0).astype(np.float32),) if bias else ()
    op: Op = MultiHeadAttention(2, 0.4)
    (want,) = op.reference(q, k, v, *added)
    np.testing.assert_allclose(lowered("ort-cuda", op, q, k, v, *added)[0], want, atol=1e-5)


def test_attention_whose_operands_lie_side_by_side() -> None:
    kernel = GroupQueryAttention(4, 2, 0.3, compact=True)
    q, k, v = floats(2, 1, 32), floats(2, 1, 16), floats(2, 1, 16)
    past = (floats(2, 2, 3, 8), floats(2, 2, 3, 8))
    mask = np.array([[1, 1, 1, 1], [1, 1, 0, 0]])
    want = kernel.reference(q, k, v, *past, mask)
    packed = PackedGroupQueryAttention(kernel)
    qkv = np.concatenate([q, k, v], axis=-1)
    for a, b in zip(packed.reference(qkv, *past, mask), want, strict=True):
        np.testing.assert_array_equal(a, b)
    found = lowered("ort-cuda", packed, qkv, *past, mask, symbols=("batch_size",))
    np.testing.assert_allclose(found[0], want[0], atol=1e-5)


def test_a_sum_that_is_read_before_its_norm_is_kept() -> None:
    """Readers behind the norm take the kernel's sum; one in front of it keeps the plain one."""
    make, x, y = Maker(), tokens(8), tokens(8, "y")
    total = make(Binary("add"), x, y)
    before = make(Binary("mul"), total, x)
    normed = make(Norm("rms", 1e-5), total, make.weight(8))
    after = make(Binary("mul"), total, normed)
    graph = make.graph(x, y, before=before, after=after)
    chosen = at_kernel_level(graph, "ort-cuda")
    feeds = {"x": floats(2, 3, 8), "y": floats(2, 3, 8)}
    want, found = make.run(graph, feeds), make.run(chosen, feeds)
    assert kernels(chosen)["skip_rms_normalization"] == 1
    (kernel,) = (node for node in chosen.nodes if isinstance(node.op, SkipRmsNormalization))
    assert kernel.outputs[1] in chosen.nodes[-1].inputs, "the sum is not computed twice"
    for name, array in want.items():
        np.testing.assert_allclose(found[name], array, rtol=1e-6)


def test_a_sum_of_unlike_shapes_is_no_skip() -> None:
    make, x = Maker(), tokens(8)
    graph = make.graph(x, y=make(Norm("rms", 1e-5), make(Binary("add"), x, make.weight(8)), make.weight(8)))
    assert kernels(at_kernel_level(graph, "ort-cuda"))["skip_rms_normalization"] == 0


def test_a_build_that_nothing_here_runs_is_held_to_its_kernels_meanings(tmp_path: Path) -> None:
    from flowc.compile import build

    built = build(example("tiny-llama", "bfloat16", "right-padding"), tmp_path / "model.onnx", check=quick.check)
    names = {check["name"] for check in built.checks}
    assert {"device", "numbers", "pair", "alone", "ports"} <= names
    device = next(check for check in built.checks if check["name"] == "device")
    assert "not run" in str(device)


def test_a_wrong_kernel_of_such_a_build_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A planted fault in the graph after the passes: its epsilon is another one."""
    from dataclasses import replace

    from flowc.compile import build
    from flowc.errors import CheckFailed

    compiled = example("tiny-llama", "bfloat16", "right-padding")
    for phase, graph in compiled.graphs.items():
        nodes = tuple(
            replace(n, op=replace(n.op, eps=0.5)) if isinstance(n.op, SkipRmsNormalization) else n for n in graph.nodes
        )
        compiled.graphs[phase] = replace(graph, nodes=nodes)
    with pytest.raises(CheckFailed, match="wrong numbers"):
        build(compiled, tmp_path / "model.onnx", check=quick.check)
