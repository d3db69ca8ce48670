from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowc.ir.core.attention import Attention
from flowc.ir.core.elementwise import Binary, Unary
from flowc.ir.core.layout import Reshape, Slice, Transpose
from flowc.ir.core.linear import Linear
from flowc.ir.core.norm import Norm
from flowc.ir.core.pool import Pool
from flowc.ir.core.positions import TakeLast
from flowc.ir.core.rope import Rope
from flowc.ir.core.token_positions import AllOnes
from flowc.ir.graph import Graph, Value
from flowc.ir.op import Op
from flowc.ir.types import TensorType
from flowc.ir.visibility import CAUSAL, EVERYTHING, Visibility
from flowc.passes.fold_rope import fold_rope
from flowc.passes.hoist_token_selection import hoist_token_selection
from tests.passes.graphs import B, Maker, S, ids, tokens
from tests.passes.making import (
    HEAD,
    LLAMA,
    Array,
    apply,
    assert_close,
    compile_text,
    random_feeds,
    run,
    run_onnx,
    same_numbers,
)

WINDOWED = LLAMA.replace("llama_decoder: 'model.layers.{i}'", "llama_decoder: {prefix: 'model.layers.{i}', window: 2}")
NO_ROPE = LLAMA.replace(
    "llama_decoder: 'model.layers.{i}'", "llama_decoder: {prefix: 'model.layers.{i}', rope: null}"
).replace("  - rope_tables: {theta: 10000}\n", "")


def widths(graph: Graph, op: type[Op]) -> list[object]:
    """The number of tokens that each operator of a kind works on, in order."""
    return [n.outputs[0].shape[1] for n in graph.nodes if isinstance(n.op, op)]


@pytest.mark.parametrize("folded", [False, True])
@pytest.mark.parametrize("assume", ["none", "no-padding"])
@pytest.mark.parametrize("text", [LLAMA, WINDOWED, NO_ROPE])
@pytest.mark.parametrize("phase", ["prefill", "unified"])
def test_the_last_layer_runs_on_one_token(tmp_path: Path, phase: Any, text: str, assume: str, folded: bool) -> None:
    compiled = compile_text(tmp_path, text, graphs=(phase,), assume=assume)
    graph = compiled.expanded[phase]
    result = apply(hoist_token_selection, apply(fold_rope, graph).after if folded else graph)
    s = "sequence_length"
    assert widths(result.after, Attention) == [s, 1]
    # q, k, v, o, gate, up, down of a layer, and the head
    assert widths(result.after, Linear) == [s] * 7 + [1, s, s, 1, 1, 1, 1, 1]
    assert widths(result.after, Norm) == [s, s, s, 1, 1]
    assert result.audit.fired == ["gather_last_token.take_last"]
    assert not result.audit.missed
    for padding in ("left", "right", "ragged"):
        if padding == "left" or assume == "none":
            same_numbers(result, compiled, padding=padding)


def test_a_decode_graph_has_nothing_to_keep(tmp_path: Path) -> None:
    compiled = compile_text(tmp_path, LLAMA, graphs=("decode",))
    result = apply(hoist_token_selection, compiled.expanded["decode"])
    assert result.after is result.before
    assert not result.audit.candidates


def test_all_logits_keep_all_tokens(tmp_path: Path) -> None:
    compiled = compile_text(tmp_path, LLAMA, graphs=("prefill",), logits="all")
    result = apply(hoist_token_selection, compiled.expanded["prefill"])
    assert result.after is result.before
    assert not result.audit.candidates


# An encoder made by hand: what its CLS token needs

IDS = tokens(8)
MASK = ids("attention_mask")


def encoder(make: Maker, seen: Visibility = EVERYTHING, *, bias: bool = False) -> Value:
    x = IDS
    for _ in range(2):
        h = make(Norm("layer", 1e-5), x)
        q, k, v = (make(Linear(), h, make.weight(8, 8)) for _ in range(3))
        b = None
        if bias:
            scores = make(Reshape((B, S, 1, 1)), make(Linear(), h, make.weight(1, 8)))
            b = make(Binary("add"), make(Transpose((0, 2, 1, 3)), scores), make(Transpose((0, 2, 3, 1)), scores))
        y = make(Attention(2, 2, 0.5, seen), q, k, v, None, None, MASK, b)
        x = make(Binary("add"), x, make(Linear(), y, make.weight(8, 8), make.weight(8)))
        x = make(Binary("add"), x, make(Unary("relu"), make(Linear(), x, make.weight(8, 8))))
    return x


def feeds() -> dict[str, Array]:
    rng = np.random.default_rng(2)
    mask = np.ones((2, 6), np.int64)
    mask[1, 4:] = 0
    return {"x": rng.standard_normal((2, 6, 8)).astype(np.float32), "attention_mask": mask}


@pytest.mark.parametrize("seen", [EVERYTHING, Visibility.around(2), CAUSAL, Visibility.before(2)], ids=str)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("choice", [Slice(1, 0, 1), Slice(1, -1), Slice(1, 2, 3)])
def test_a_cls_token_alone(seen: Visibility, bias: bool, choice: Slice) -> None:
    make = Maker()
    graph = make.graph(IDS, MASK, y=make(choice, encoder(make, seen, bias=bias)))
    result = apply(hoist_token_selection, graph)
    assert widths(result.after, Attention) == [S, 1]
    assert len(result.audit.fired) == 1
    assert not result.audit.missed
    want, got = (make.run(g, feeds()) for g in (graph, result.after))
    assert_close(got, want)


def test_a_whole_that_is_also_asked_for_stays_whole() -> None:
    make = Maker()
    x = encoder(make)
    graph = make.graph(IDS, MASK, last_hidden_state=x, y=make(Slice(1, 0, 1), x))
    result = apply(hoist_token_selection, graph)
    assert result.after is graph
    assert result.audit.missed == [(graph.nodes[-1].outputs[0].name, "the whole is the output last_hidden_state")]


def test_what_mixes_tokens_stops_it() -> None:
    make = Maker()
    x = encoder(make)
    x = make(Transpose((0, 2, 1)), make(Unary("exp"), make(Transpose((0, 2, 1)), x)))
    graph = make.graph(IDS, MASK, y=make(Slice(1, 0, 1), make(Unary("tanh"), x)))
    result = apply(hoist_token_selection, graph)
    assert widths(result.after, Unary) == [S, S, 8, 1]  # the tanh alone, behind the transposes
    assert [why for _, why in result.audit.missed] == ["transpose mixes tokens"]


def test_a_bias_over_the_queries_stops_the_last_token() -> None:
    make = Maker()
    graph = make.graph(IDS, MASK, y=make(TakeLast(), encoder(make, bias=True), MASK))
    result = apply(hoist_token_selection, graph)
    assert widths(result.after, Attention) == [S, S]
    assert [why for _, why in result.audit.missed] == ["each row of the batch would need another row of the bias"]
    want, got = (make.run(g, feeds()) for g in (graph, result.after))
    assert_close(got, want)


@pytest.mark.parametrize(("kind", "masked"), [("cls", False), ("cls", True), ("last", True), ("last", False)])
def test_poolers_that_keep_one_token(kind: Any, masked: bool) -> None:
    make = Maker()
    pooled = make(Pool(kind), encoder(make), MASK if masked else None)
    result = apply(hoist_token_selection, make.graph(IDS, MASK, y=make(Unary("tanh"), pooled)))
    if kind == "last" and not masked:  # not the last of the keys, some of which are padding
        why = "the token is chosen by another mask than the keys'"
        assert [reason for _, reason in result.audit.missed] == [why]
        return
    assert widths(result.after, Attention) == [S, 1]
    assert len(result.audit.fired) == 1
    given = feeds()
    given["attention_mask"][0, :2] = 0
    want, got = (make.run(g, given) for g in (result.before, result.after))
    assert_close(got, want)


@pytest.mark.parametrize("seen", [Visibility.around(2), CAUSAL], ids=str)
def test_a_place_that_differs_by_row_needs_attention_without_places(seen: Visibility) -> None:
    make = Maker()
    graph = make.graph(IDS, MASK, y=make(Pool("cls"), encoder(make, seen), MASK))
    result = apply(hoist_token_selection, graph)
    assert widths(result.after, Attention) == [S, S]
    assert [why for _, why in result.audit.missed] == ["what it sees depends on where it stands"]
    want, got = (make.run(g, feeds()) for g in (graph, result.after))
    assert_close(got, want)


def test_other_poolers_need_all_tokens() -> None:
    make = Maker()
    graph = make.graph(IDS, MASK, y=make(Pool("mean"), encoder(make), MASK))
    assert apply(hoist_token_selection, graph).after is graph


def test_a_pooler_stays_one_operator_where_the_whole_is_needed() -> None:
    make = Maker()
    x = encoder(make)
    graph = make.graph(IDS, MASK, last_hidden_state=x, y=make(Pool("cls"), x))
    result = apply(hoist_token_selection, graph)
    assert result.after is graph
    assert len(result.audit.missed) == 1


def test_a_token_chosen_by_another_mask_is_not_the_last_of_the_keys() -> None:
    make, other = Maker(), ids("other")
    x = make(Unary("relu"), encoder(make, CAUSAL))
    graph = make.graph(IDS, MASK, other, y=make(TakeLast(), x, other))
    result = apply(hoist_token_selection, graph)
    assert widths(result.after, Attention) == [S, S]
    assert widths(result.after, Unary)[-1] == 1
    assert [why for _, why in result.audit.missed] == ["the token is chosen by another mask than the keys'"]
    mask = np.ones((2, 6), np.int64)
    mask[:, 3:] = 0
    want, got = (make.run(g, {**feeds(), "other": mask}) for g in (graph, result.after))
    assert_close(got, want)


@pytest.mark.parametrize(("seen", "moves"), [(Visibility.around(1), False), (CAUSAL, False), (EVERYTHING, True)])
def test_a_token_chosen_by_a_mask_that_hides_no_keys(seen: Visibility, moves: bool) -> None:
    """Keys of padding are not hidden, so the last valid token is not where the last query stands."""
    make = Maker()
    h = make(Norm("layer", 1e-5), IDS)
    q, k, v = (make(Linear(), h, make.weight(8, 8)) for _ in range(3))
    y = make(Attention(2, 2, 0.5, seen), q, k, v)
    result = apply(hoist_token_selection, make.graph(IDS, MASK, y=make(TakeLast(), y, MASK)))
    assert widths(result.after, Attention) == [1 if moves else S]
    want, got = (make.run(g, feeds()) for g in (result.before, result.after))
    assert_close(got, want)


@pytest.mark.parametrize("choice", [Slice(1, 0, 1), Slice(1, -1), Slice(1, 2, 3)])
def test_a_fixed_place_takes_its_row_of_what_the_batch_shares(choice: Slice) -> None:
    """Angles of patches and position embeddings are the same in all rows, so their row at that place is known."""
    make = Maker()
    cos, sin = (Value(n, TensorType("float32", (1, S, 2))) for n in ("cos", "sin"))
    table = Value("table", TensorType("float32", (1, S, 8)))
    h = make(Norm("layer", 1e-5), IDS)
    q, k, v = (make(Linear(), h, make.weight(8, 8)) for _ in range(3))
    y = make(Attention(2, 2, 0.5), make(Rope(2), q, cos, sin), make(Rope(2), k, cos, sin), v)
    y = make(Binary("add"), make(Binary("add"), IDS, y), table)
    result = apply(hoist_token_selection, make.graph(IDS, cos, sin, table, y=make(choice, y)))
    assert widths(result.after, Attention) == [1]
    assert sorted(map(str, widths(result.after, Rope))) == ["1", S]
    assert not result.audit.missed
    rng = np.random.default_rng(5)
    given = {n: rng.standard_normal((1, 6, w)).astype(np.float32) for n, w in (("cos", 2), ("sin", 2), ("table", 8))}
    want, got = (make.run(g, {**feeds(), **given}) for g in (result.before, result.after))
    assert_close(got, want)


def test_nothing_moves_before_the_mask_that_chooses_is_made() -> None:
    make = Maker()
    x = encoder(make)
    ones = make(AllOnes(), x)
    graph = make.graph(IDS, MASK, y=make(Pool("cls"), make(Unary("tanh"), x), ones))
    result = apply(hoist_token_selection, graph)
    assert widths(result.after, Unary) == [S, S, 1]
    assert [why for _, why in result.audit.missed] == ["the mask of the choice is made after it"]
    want, got = (make.run(g, feeds()) for g in (graph, result.after))
    assert_close(got, want)


def test_a_classifier_computes_one_token_in_onnxruntime(tmp_path: Path) -> None:
    text = """
kind: encoder
inputs: {input_ids: 'int64[batch_size, sequence_length]', attention_mask: 'int64[batch_size, sequence_length]'}
flow:
  - embed: embeddings.weight
  - repeat: {count: $layers, body: [bert_encoder_layer: {prefix: 'layers.{i}', activation: relu}]}
  - pooler: pooler.dense.weight
  - linear: {weight: classifier.weight, out: 3, bias: true}
"""
    head = HEAD.replace("hidden: 32", "hidden: 64").replace(" kv_heads: 2,", "")
    compiled = compile_text(tmp_path, text, head)
    assert widths(compiled.graphs["encode"], Attention) == [S, 1]
    for padding in ("left", "right", "ragged"):
        given = random_feeds(compiled.expanded["encode"], 1, padding)
        want = run(compiled.expanded["encode"], given, compiled)
        for on in ("ort-cpu", "portable"):
            assert_close(run_onnx(compiled.graphs["encode"], given, compiled, on), want)
