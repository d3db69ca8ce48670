from __future__ import annotations

from pathlib import Path

import pytest

from flowc.ir.core.attention import Attention
from flowc.ir.core.layout import Transpose
from flowc.ir.core.linear import Linear
from flowc.ir.core.norm import Norm
from flowc.passes.eliminate_common_subexpressions import eliminate_common_subexpressions
from tests.passes.making import LLAMA, apply, compile_text, count, same_numbers

TAPPED = LLAMA.replace("body: [", "body: [llama_kv_tap: 'model.layers.{i}', ")


@pytest.mark.parametrize("phase", ["prefill", "decode", "unified"])
def test_a_tap_shares_its_layer(tmp_path: Path, phase: str) -> None:
    compiled = compile_text(tmp_path, TAPPED, graphs=(phase,))
    result = apply(eliminate_common_subexpressions, compiled.expanded[phase])
    plain = compile_text(tmp_path, LLAMA, graphs=(phase,)).expanded[phase]
    assert count(result.before, Linear) == count(plain, Linear) + 4
    assert count(result.after, Linear) == count(plain, Linear)
    assert count(result.after, Norm) == count(plain, Norm)
    assert count(result.after, Attention) == 2
    assert count(result.after, Transpose) == 0
    assert len(result.audit.fired) == 2 * (1 + 2 + 1 + 2)  # norm, k and v, rope of k, both presents
    same_numbers(result, compiled)


def test_nothing_is_shared_where_all_differs(tmp_path: Path) -> None:
    compiled = compile_text(tmp_path, LLAMA)
    for graph in compiled.expanded.values():
        result = apply(eliminate_common_subexpressions, graph)
        assert result.after is graph
        assert not result.audit.candidates
