"""A build in half precision: ports as the contract says, float32 where it must be, the numbers those of float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flowc.build.compiled import Compiled, Request
from flowc.compile import compile_file
from flowc.ir.core.cast import Cast
from flowc.ir.core.recurrent import DeltaScan
from flowc.ir.graph import Graph
from tests.oracle_io import Array
from tests.passes.making import HEAD, LLAMA, compile_text, random_feeds, run, run_onnx

ROOT = Path(__file__).parents[2]
HALVES = {"float16": 2.0**-11, "bfloat16": 2.0**-8}


def example(name: str, dtype: str, on: str, islands: tuple[str, ...] = ()) -> Compiled:
    return compile_file(ROOT / f"examples/{name}.yaml", Request(target=on, dtype=dtype, islands=islands))


def ports(graph: Graph) -> dict[str, str]:
    """Element types of the float ports by name."""
    found = {v.name: v.dtype for v in graph.inputs} | {o.name: o.value.dtype for o in graph.outputs}
    return {name: dtype for name, dtype in found.items() if not dtype.startswith("int")}


def feeds_of(graph: Graph) -> dict[str, Array]:
    """Feeds that half precision holds exactly, so that both builds are fed the same numbers."""
    feeds = random_feeds(graph, padding="left")
    return {n: a.astype(np.float16).astype(np.float32) if a.dtype.kind == "f" else a for n, a in feeds.items()}


def typed(feeds: dict[str, Array], graph: Graph) -> dict[str, Array]:
    types = {v.name: v.dtype for v in graph.inputs}
    return {n: a.astype(types[n]) if a.dtype.kind == "f" else a for n, a in feeds.items()}


@pytest.mark.parametrize("phase", ["prefill", "decode", "unified"])
def test_ports_of_a_graph_that_computes_in_half_precision(phase: str) -> None:
    found = ports(example("qwen3.5", "float16", "portable").graphs[phase])
    assert found.pop("logits") == "float32"
    slots = {name: name.rpartition(".")[2] for name in found}
    assert set(slots.values()) == {"key", "value", "conv_state", "recurrent_state"}
    wide = {name for name, dtype in found.items() if dtype == "float32"}
    assert wide == {name for name, slot in slots.items() if slot == "recurrent_state"}
    assert set(found.values()) == {"float32", "float16"}


def test_outputs_and_pixels_of_an_encoder_are_float32() -> None:
    assert set(ports(example("vit", "float16", "portable").graphs["encode"]).values()) == {"float32"}


@pytest.mark.parametrize("dtype", HALVES)
def test_ports_are_float32_where_half_precision_is_storage(dtype: str) -> None:
    compiled = example("qwen3.5", dtype, "ort-cpu")
    for graph in compiled.graphs.values():
        assert set(ports(graph).values()) == {"float32"}
        computed = {v.dtype for n in graph.nodes for v in n.outputs if not isinstance(n.op, Cast)} - {"int64", "bool"}
        assert computed <= {"float32", dtype}
        stored = [w for w in graph.weights() if len(w.shape) > 1 and w.nbytes > 4096]
        assert stored
        assert {w.dtype for w in stored if "rope" not in w.key} == {dtype}


@pytest.mark.parametrize("on", ["portable", "ort-cpu"])
@pytest.mark.parametrize("phase", ["prefill", "decode", "unified"])
@pytest.mark.parametrize("name", ["tiny-llama", "gemma2", "qwen3.5", "qwen3", "phi3"])
def test_numbers_are_those_of_float32_but_for_rounding(name: str, phase: str, on: str) -> None:
    single, half = example(name, "float32", on), example(name, "float16", on)
    feeds = feeds_of(single.expanded[phase])
    want = run(single.expanded[phase], feeds, single)["logits"]
    graph = half.graphs[phase]
    close = 24 * HALVES["float16"] * np.abs(want).max()
    for found in (
        run(half.expanded[phase], typed(feeds, half.expanded[phase]), half),
        run(graph, typed(feeds, graph), half),
        run_onnx(graph, typed(feeds, graph), half, on),
    ):
        assert found["logits"].dtype == np.float32
        assert np.abs(found["logits"] - want).max() <= close
        assert not np.array_equal(found["logits"], want)


def test_the_delta_rule_computes_in_float32() -> None:
    for graph in example("qwen3-next", "float16", "portable").graphs.values():
        scans = [n for n in graph.nodes if isinstance(n.op, DeltaScan)]
        assert scans
        assert {v.dtype for n in scans for v in (*n.inputs, *n.outputs) if v is not None} <= {"float32", "int64"}


@pytest.mark.parametrize("name", ["qwen3-next", "qwen3.5"])
def test_what_stands_between_operators_in_float32_alone_is_not_rounded(name: str) -> None:
    """Splits and shapes on the way to the delta rule stay float32: casts around each would cost more."""
    for graph in example(name, "float16", "portable").graphs.values():
        users, outputs = graph.users(), {o.value for o in graph.outputs}
        for node in graph.nodes:
            readers = [r for v in node.outputs for r in users.get(v, [])]
            if node.op.exact and not isinstance(node.op, Cast) and readers and outputs.isdisjoint(node.outputs):
                assert not all(r.op == Cast("float32") for r in readers), node.outputs[0].name


def test_an_island_computes_in_float32() -> None:
    plain = example("tiny-llama", "float16", "portable").graphs["prefill"]
    island = example("tiny-llama", "float16", "portable", ("repeat.layers.1.*",)).graphs["prefill"]

    def wide(graph: Graph, stage: str) -> set[str]:
        return {n.op.name for n in graph.nodes for v in n.outputs if v.dtype == "float32" and n.origin.stage == stage}

    assert "onnx_attention" not in wide(plain, "repeat.layers.1.llama_decoder")
    assert "onnx_attention" in wide(island, "repeat.layers.1.llama_decoder")
    assert "onnx_attention" not in wide(island, "repeat.layers.0.llama_decoder")
    caches = {o.name: o.value.dtype for o in island.outputs if o.name.startswith("present.")}
    assert set(caches.values()) == {"float16"}


def test_graphs_of_one_build_share_the_bytes_of_half_precision_too(tmp_path: Path) -> None:
    """A packed projection of the decode graph holds the rows that the prefill graph reads."""
    from flowc.build.data import plan

    compiled = compile_text(tmp_path, LLAMA, HEAD, dtype="float16")
    single = compile_text(tmp_path, LLAMA, HEAD)
    half, whole = plan(compiled.weights, "m.data"), plan(single.weights, "m.data")
    assert [len(data.stored) for data in half.files] == [len(data.stored) for data in whole.files]
    assert half.size < 0.65 * whole.size
