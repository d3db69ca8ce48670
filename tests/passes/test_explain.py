from __future__ import annotations

from pathlib import Path

import pytest

from flowc.errors import CheckFailed
from flowc.ir.canonical import canonical, difference
from flowc.ir.cost import costs, sizes_of
from flowc.passes.audit import Audit
from flowc.passes.explain import explain
from tests.passes.making import HEAD, LLAMA, compile_text

PARTS = """
flow:
  - embed: model.embed_tokens.weight
  - rope_tables: {theta: 10000}
  - repeat:
      count: $layers
      body: [llama_decoder: 'model.layers.{i}']
  - rms_norm: model.norm.weight
  - gather_last_token
  - lm_head: {tied: true}
"""


def test_audits_of_all_graphs_are_merged() -> None:
    audits = {
        "prefill": {"one": Audit(["a", "b"], [("c", "why")]), "two": Audit()},
        "decode": {"one": Audit(["b"], [("c", "why"), ("d", "other")]), "two": Audit()},
    }
    one, two = explain(audits)
    assert (one.name, one.at, one.fired, one.candidates) == ("one", ("a", "b"), 2, 4)
    assert [(m.at, m.reason, m.graphs) for m in one.misses] == [
        ("c", "why", ("prefill", "decode")),
        ("d", "other", ("decode",)),
    ]
    assert one.as_json()["misses"][0] == {"at": "c", "reason": "why", "graphs": ["prefill", "decode"]}
    assert (two.fired, two.candidates) == (0, 0)


def test_names_and_places_do_not_matter_to_the_canonical_form(tmp_path: Path) -> None:
    a, b = compile_text(tmp_path, LLAMA), compile_text(tmp_path, PARTS, HEAD + "# moved\n\n", name="other")
    for phase, graph in a.graphs.items():
        assert canonical(graph) == canonical(b.graphs[phase])
        assert difference(graph, b.graphs[phase]) == []


def test_numbers_and_weights_do(tmp_path: Path) -> None:
    graph = compile_text(tmp_path, LLAMA).graphs["prefill"]
    for old, new in (("10000", "10001"), ("model.norm.weight", "model.layers.0.input_layernorm.weight")):
        other = compile_text(tmp_path, LLAMA.replace(old, new)).graphs["prefill"]
        assert difference(graph, other)
    assert difference(graph, compile_text(tmp_path, LLAMA, HEAD.replace("1e-5", "1e-6")).graphs["prefill"])


def test_costs_are_those_of_the_arithmetic(tmp_path: Path) -> None:
    compiled = compile_text(tmp_path, LLAMA)
    h, heads, kv, d, ffn, vocab, layers = 32, 4, 2, 16, 48, 61, 2
    linear = h * heads * d * 2 + h * kv * d * 2 + 3 * h * ffn
    total = costs(compiled.expanded["decode"], sizes_of(compiled.expanded["decode"], past=10)).total
    assert total.macs == layers * (linear + 2 * heads * d * 11) + h * vocab
    assert total.parameters == vocab * h + layers * (linear + 2 * h) + h
    assert total.cache_bytes == layers * 2 * kv * d * 4
    weights = layers * (linear + 2 * h) + h + vocab * h + h  # the head, and one row of the same table
    assert total.bytes_read == 4 * (weights + layers * 2 * kv * d * 10)
    prefill = compiled.expanded["prefill"]
    whole = costs(prefill, sizes_of(prefill, 2, 7)).total
    assert whole.macs == 2 * (7 * layers * linear + layers * 2 * heads * d * 7 * 7 + h * vocab)
    pruned = costs(compiled.graphs["prefill"], sizes_of(prefill, 2, 7)).total
    spared = 6 * (h * heads * d * 2 + 3 * h * ffn) + 2 * heads * d * 7 * 6
    assert whole.macs - pruned.macs == 2 * spared


def test_of_a_rope_table_in_the_attention_a_row_per_token_is_read(tmp_path: Path) -> None:
    compiled = compile_text(tmp_path, LLAMA, assume="right-padding")
    sizes = sizes_of(compiled.expanded["decode"], past=10)
    whole, fused = (costs(graph["decode"], sizes).total for graph in (compiled.expanded, compiled.graphs))
    assert fused.bytes_read - whole.bytes_read == 2 * 2 * 8 * 4  # layers, cos and sin, half a head, float32


def test_costs_name_the_stages(tmp_path: Path) -> None:
    graph = compile_text(tmp_path, LLAMA).graphs["unified"]
    found = {c.stage: c for c in costs(graph, sizes_of(graph, 1, 3, 4)).stages}
    assert found["repeat.layers.1.llama_decoder"].kind == "llama_decoder"
    assert found["lm_head"].parameters == 0
    assert found["embed"].parameters == 61 * 32


def test_an_expected_number_is_the_one_that_explain_shows(tmp_path: Path) -> None:
    """A decode graph has no row to keep, and its rope is the one of the other graphs."""
    compile_text(tmp_path, LLAMA + "expect: {fold_rope: 1, hoist_token_selection: 1, fold_masks: 2}\n")
    with pytest.raises(CheckFailed, match="it fired 1 times in unified, 1 times in prefill, 0 times in decode"):
        compile_text(tmp_path, LLAMA + "expect: {hoist_token_selection: 2}\n")
