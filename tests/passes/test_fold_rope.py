from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowc.ir.core.rope import Rope, RopeAngles, SwitchRows
from flowc.ir.rope import RopeFacts
from flowc.ir.weights.expressions import Generated
from flowc.passes.fold_rope import fold_rope, table
from tests.passes.making import (
    HEAD,
    LLAMA,
    apply,
    assert_close,
    compile_text,
    count,
    random_feeds,
    run,
    run_onnx,
    same_numbers,
)

LONG = "rope_tables: {theta: 10000, type: longrope, original_length: 8, attention_factor: 1.25, " + (
    f"short_factor: {[1.0 + 0.05 * i for i in range(8)]}, long_factor: {[2.0 + 0.5 * i for i in range(8)]}}}"
)
ROPES = {
    "default": "rope_tables: {theta: 10000}",
    "partial": "rope_tables: {theta: 500, rotary_dim: 8}",
    "linear": "rope_tables: {theta: 10000, type: linear, factor: 4.0}",
    "llama3": "rope_tables: {theta: 10000, type: llama3, factor: 8.0, original_length: 16}",
    "yarn": "rope_tables: {theta: 10000, type: yarn, factor: 4.0, original_length: 16, attention_factor: 1.1386}",
    "longrope": LONG,
}


def with_rope(stage: str) -> str:
    return LLAMA.replace("rope_tables: {theta: 10000}", stage)


@pytest.mark.parametrize("phase", ["prefill", "decode", "unified"])
@pytest.mark.parametrize("rope", ROPES)
def test_angles_become_tables(tmp_path: Path, rope: str, phase: Any) -> None:
    compiled = compile_text(tmp_path, with_rope(ROPES[rope]), graphs=(phase,))
    result = apply(fold_rope, compiled.expanded[phase])
    assert len(result.audit.fired) == 1
    assert not result.audit.missed
    assert count(result.after, RopeAngles) == 0
    assert count(result.after, SwitchRows) == (rope == "longrope")
    assert len({n.inputs[1].weight.key for n in result.after.nodes if isinstance(n.op, Rope)}) == 1  # pyright: ignore[reportOptionalMemberAccess]
    same_numbers(result, compiled)


@pytest.mark.parametrize("length", [8, 9])
def test_longrope_switches_by_the_longest_row(tmp_path: Path, length: int) -> None:
    compiled = compile_text(tmp_path, with_rope(LONG), graphs=("prefill",))
    graph = compiled.expanded["prefill"]
    result = apply(fold_rope, graph)
    feeds = random_feeds(graph, 1, sizes={"sequence_length": length})
    want = run(graph, feeds, compiled)
    assert_close(run(result.after, feeds, compiled), want, feeds["attention_mask"])
    assert_close(run_onnx(result.after, feeds, compiled), want, feeds["attention_mask"])
    other = RopeFacts(
        10000.0,
        16,
        "longrope",
        original_length=8,
        attention_factor=1.25,
        short_factor=(1.0,) * 8,
        long_factor=(2.0,) * 8,
    )
    assert table(other, 64, "cos").shape == (128, 8)
    assert table(other, 8, "cos").shape == (8, 8)


def test_longrope_within_its_original_length_needs_one_table(tmp_path: Path) -> None:
    compiled = compile_text(tmp_path, with_rope(LONG), graphs=("prefill",))
    result = apply(fold_rope, compiled.expanded["prefill"], context=8)
    assert count(result.after, SwitchRows) == 0
    assert {w.shape for w in result.after.weights() if isinstance(w, Generated)} == {(8, 8)}


def test_a_position_beyond_the_table_is_an_error(tmp_path: Path) -> None:
    for stage in (ROPES["default"], LONG):
        compiled = compile_text(tmp_path, with_rope(stage), graphs=("prefill",))
        result = apply(fold_rope, compiled.expanded["prefill"], context=12)
        feeds = random_feeds(result.before, sizes={"sequence_length": 13})
        feeds["attention_mask"][:] = 1
        for on in ("ort-cpu", "portable"):
            with pytest.raises(Exception, match="RotaryEmbedding"):
                run_onnx(result.after, feeds, compiled, on)
        with pytest.raises(IndexError):
            run(result.after, feeds, compiled)


def test_without_a_context_length_it_stays_and_says_why(tmp_path: Path) -> None:
    head = HEAD.replace(", context_length: 64", "")
    compiled = compile_text(tmp_path, LLAMA, head, graphs=("prefill",))
    result = apply(fold_rope, compiled.expanded["prefill"], context=None)
    assert count(result.after, RopeAngles) == 1
    assert not result.audit.fired
    assert "context" in result.audit.missed[0][1]


def test_tables_are_those_of_every_graph_and_name_their_facts() -> None:
    facts = RopeFacts(10000.0, 16)
    assert table(facts, 64, "cos").key == table(RopeFacts(10000.0, 16), 64, "cos").key
    others = [table(RopeFacts(10001.0, 16), 64, "cos"), table(facts, 65, "cos"), table(facts, 64, "sin")]
    assert len({t.key for t in others} | {table(facts, 64, "cos").key}) == 4
    made = table(facts, 64, "cos").evaluate(lambda name, rows: np.zeros(0))
    np.testing.assert_allclose(made[3], np.cos(3 * 10000.0 ** (-np.arange(8) / 8)), atol=1e-6)


def test_a_constant_position_folds_to_its_row(tmp_path: Path) -> None:
    flow = """
flow:
  decode:
    - embed: model.embed_tokens.weight
    - bind_decode_inputs
    - decode_rope_params: {theta: 10000, position: 4}
    - repeat: {count: $layers, body: [llama_decode_layer: 'model.layers.{i}']}
    - rms_norm: model.norm.weight
    - lm_head: {tied: true}
"""
    compiled = compile_text(tmp_path, flow, graphs=("decode",))
    result = apply(fold_rope, compiled.expanded["decode"], context=None)
    assert count(result.after, RopeAngles) == 0
    assert {n.inputs[1].shape for n in result.after.nodes if isinstance(n.op, Rope)} == {(1, 1, 8)}  # pyright: ignore[reportOptionalMemberAccess]
    same_numbers(result, compiled, padding="none")


def test_a_table_beyond_all_measure_is_not_made(tmp_path: Path) -> None:
    compiled = compile_text(tmp_path, LLAMA, graphs=("prefill",))
    result = apply(fold_rope, compiled.expanded["prefill"], context=10**12)
    assert result.after is result.before
    assert [why for _, why in result.audit.missed] == ["a table of 1000000000000 positions is larger than 1024 MiB"]
