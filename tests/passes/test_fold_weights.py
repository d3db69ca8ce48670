from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flowc.ir.core.elementwise import Binary, Scale, Softcap, Unary
from flowc.ir.core.gather import Gather
from flowc.ir.core.layout import Reshape, Slice, Transpose
from flowc.ir.core.linear import Linear
from flowc.ir.core.norm import Norm
from flowc.ir.graph import Value
from flowc.passes.fold_weights import SHARED, fold_weights
from tests.passes.graphs import Maker, filled, ids, tokens
from tests.passes.making import Result, apply, assert_close, count

X, IDS = tokens(8), ids()


def check(make: Maker, y: Value, **more: Value) -> Result:
    graph = make.graph(X, IDS, y=y, **more)
    result = apply(fold_weights, graph)
    rng = np.random.default_rng(5)
    feeds = {"x": rng.standard_normal((2, 3, 8)).astype(np.float32), "ids": rng.integers(0, 6, (2, 3))}
    assert_close(make.run(result.after, feeds), make.run(graph, feeds), tolerance=1e-5)
    return result


@pytest.mark.parametrize("groups", [1, 2])
def test_the_offset_of_a_norm_goes_into_its_gain(groups: int) -> None:
    make = Maker()
    result = check(make, make(Norm("rms", 1e-6, 1.0, groups), X, make.weight(8 // groups)))
    assert len(result.audit.fired) == 1
    assert [n.op for n in result.after.nodes] == [Norm("rms", 1e-6, 0.0, groups)]


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("kind", ["vector", "reversed", "scale"])
def test_a_factor_goes_into_the_projection_before_it(kind: str, bias: bool) -> None:
    make = Maker()
    y = make(Linear(), X, make.weight(5, 8), make.weight(5) if bias else None)
    vector = make.weight(5)
    y = (
        make(Scale(0.3), y)
        if kind == "scale"
        else make(Binary("mul"), *((y, vector) if kind == "vector" else (vector, y)))
    )
    result = check(make, y)
    assert [type(n.op) for n in result.after.nodes] == [Linear]
    assert len(result.audit.fired) == 1


@pytest.mark.parametrize("bias", [False, True])
def test_the_divisor_of_a_softcap_goes_into_the_head(bias: bool) -> None:
    make = Maker()
    y = make(Linear(), X, make.weight(5, 8), make.weight(5) if bias else None)
    result = check(make, make(Softcap(1.5), y))
    assert [n.op for n in result.after.nodes] == [Linear(), Unary("tanh"), Scale(1.5)]
    assert len(result.audit.fired) == 1


def test_a_tied_head_keeps_its_softcap() -> None:
    make = Maker()
    table = make.weight(6, 8)
    result = check(make, make(Softcap(1.5), make(Linear(), make(Gather(), table, IDS), table)))
    assert result.after is result.before
    assert [why for _, why in result.audit.missed] == [f"linear1.0: {SHARED}"]


def test_factors_fold_one_after_another() -> None:
    make = Maker()
    y = make(Scale(2.0), make(Binary("mul"), make(Linear(), X, make.weight(5, 8)), make.weight(5)))
    assert [type(n.op) for n in check(make, y).after.nodes] == [Linear]


def test_the_scale_of_an_embedding_goes_into_its_table() -> None:
    make = Maker()
    result = check(make, make(Scale(8.0**0.5), make(Gather(), make.weight(6, 8), IDS)))
    assert [type(n.op) for n in result.after.nodes] == [Gather]


def test_a_tied_table_stays_as_it_is() -> None:
    make = Maker()
    table = make.weight(6, 8)
    y = make(Linear(), make(Scale(8.0**0.5), make(Gather(), table, IDS)), table)
    result = check(make, y)
    assert result.after is result.before
    assert [why for _, why in result.audit.missed] == [f"gather0.0: {SHARED}"]


def test_a_projection_that_others_read_stays_as_it_is() -> None:
    make = Maker()
    y = make(Linear(), X, make.weight(8, 8))
    result = check(make, make(Binary("add"), y, make(Scale(0.5), y)))
    assert result.after is result.before
    assert [why for _, why in result.audit.missed] == ["linear0.0 is read elsewhere too"]


def test_a_projection_that_is_an_output_stays_as_it_is() -> None:
    make = Maker()
    y = make(Linear(), X, make.weight(8, 8))
    result = check(make, make(Scale(0.5), y), raw=y)
    assert result.after is result.before


@pytest.mark.parametrize("op", [Binary("mul"), Binary("add")])
def test_other_elementwise_operators_stay(op: Any) -> None:
    make = Maker()
    result = check(make, make(op, make(Linear(), X, make.weight(8, 8)), X))
    assert result.after is result.before
    assert not result.audit.candidates


def test_operators_on_constants_alone_become_one_constant() -> None:
    make = Maker()
    row = make(Gather(), make.weight(4, 8), filled(2, 1, 1, dtype="int64"))
    table = make(Binary("add"), make(Transpose((1, 0)), make(Reshape((8, 6)), make.weight(1, 6, 8))), row)
    table = make(Binary("mul"), make(Scale(3.0), make(Slice(1, 1, 5), table)), make.weight(8))
    result = check(make, make(Binary("add"), X, make(Reshape((1, 1, 8)), make(Slice(1, 0, 1), table))))
    assert count(result.after, Gather) == 0


@pytest.mark.parametrize("swapped", [False, True])
def test_a_row_for_all_tokens_goes_into_the_table_beside_it(swapped: bool) -> None:
    make = Maker()
    total = make(Binary("add"), X, make.weight(1, 8))
    looked = make(Gather(), make.weight(6, 8), IDS)
    result = check(make, make(Binary("add"), *((looked, total) if swapped else (total, looked))))
    assert [type(n.op) for n in result.after.nodes] == [Gather, Binary]
    assert len(result.audit.fired) == 1
