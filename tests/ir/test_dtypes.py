"""Element types are facts: operators say which they take, a mix is refused at its stage, a cast is an operator."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from flowc.errors import InternalError, Source, Span, WeightsError
from flowc.ir.core.attention import Attention
from flowc.ir.core.cast import Cast
from flowc.ir.core.elementwise import Binary, Scale
from flowc.ir.core.layout import Concat
from flowc.ir.core.linear import Linear
from flowc.ir.core.norm import Norm
from flowc.ir.dtypes import ANY, FLOAT, INTEGER, largest, numpy_dtype
from flowc.ir.graph import Origin, Value, constant, infer
from flowc.ir.kernel.group_query import MaskBias, hidden_score
from flowc.ir.op import REGISTRY, Array, Op
from flowc.ir.types import ShapeError, TensorType
from flowc.ir.verify import verify
from flowc.ir.visibility import CAUSAL
from flowc.ir.weights.expressions import Cast as CastWeight
from flowc.ir.weights.expressions import Generated, Tensor
from flowc.ir.weights.place import weight_name
from flowc.weights.checkpoint import check_finite
from tests.ir.test_traits import CASES, Case
from tests.passes.graphs import Maker, tokens

HALF = ("float16", "bfloat16")
BITS = {"float16": 11, "bfloat16": 8}
"""Bits of a significand, the one that is not stored included."""


@pytest.mark.parametrize("cls", REGISTRY.values(), ids=lambda cls: cls.name)
def test_every_operand_stands_in_one_group(cls: type[Op]) -> None:
    places = [place for group, _ in cls.dtypes for place in group]
    assert sorted(places) == list(range(len(cls.operands)))


def test_an_operator_that_says_nothing_is_refused() -> None:
    with pytest.raises(TypeError, match="does not say which element types"):

        @dataclass(frozen=True)
        class Silent(Op, name="silent", operands=("x",)):
            def infer(self, x: TensorType) -> tuple[TensorType, ...]:
                return (x,)

            def reference(self, x: Array) -> tuple[Array, ...]:
                return (x,)


def typed(case: Case) -> list[Value | None]:
    """The operands of a case as values."""
    return [None if t is None else Value(f"v{i}", t) for i, t in enumerate(case.types)]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_one_operand_of_another_type_is_refused(case: Case) -> None:
    for group, allowed in case.op.dtypes:
        given = [p for p in group if p < len(case.types) and case.types[p] is not None]
        for place in given if len(given) > 1 or set(allowed) != set(ANY) else ():
            values = typed(case)
            value = values[place]
            assert value is not None
            other = "float16" if value.dtype != "float16" and len(given) > 1 else "bool"
            if other == "bool" and "bool" in allowed:
                other = "float64"
            values[place] = Value(value.name, TensorType(other, value.shape))
            with pytest.raises(ShapeError, match=other):
                infer(case.op, values)


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_half_precision_is_float32_rounded(case: Case, dtype: str) -> None:
    """What an operator means in half precision: inputs rounded, numbers of that type out, sums not taken in it."""
    rounded = [_rounded(case.op, i, a, dtype) for i, a in enumerate(case.operands)]
    values = [None if a is None else Value(f"v{i}", TensorType(a.dtype.name, a.shape)) for i, a in enumerate(rounded)]
    types = infer(case.op, values)
    found = case.op.reference(*rounded)
    wide = [None if a is None or a.dtype.name not in HALF else a.astype(np.float32) for a in rounded]
    want = case.op.reference(*[w if w is not None else a for w, a in zip(wide, rounded, strict=True)])
    for array, wanted, type_ in zip(found, want, types, strict=True):
        assert array.dtype.name == type_.dtype
        if wanted.dtype.kind != "f":
            np.testing.assert_array_equal(array, wanted)
            continue
        if isinstance(case.op, MaskBias):  # what hides is as low as the type allows, and finite
            hidden = wanted == hidden_score("float32")
            assert (array[hidden].astype(np.float32) <= -(2.0**14)).all()
            assert np.isfinite(array.astype(np.float32)).all()
            array, wanted = np.where(hidden, 0, array), np.where(hidden, 0, wanted)
        close = 2.0 ** (4 - BITS[dtype])
        got, wanted = array.astype(np.float64), wanted.astype(np.float64)
        np.testing.assert_allclose(got, wanted, rtol=close, atol=close * max(1.0, np.abs(wanted).max()))


def _rounded(op: Op, place: int, array: Array | None, dtype: str) -> Array | None:
    """An operand in half precision where its operator takes that."""
    allowed = next((a for group, a in op.dtypes if place in group), ANY)
    if array is None or array.dtype.kind != "f" or dtype not in allowed:
        return array
    return array.astype(numpy_dtype(dtype))


@pytest.mark.parametrize("op", [Binary("add"), Concat(1)], ids=lambda op: op.name)
def test_a_mix_of_computed_values_is_refused(op: Op) -> None:
    x, y = Value("x", TensorType("float32", (2, 3))), Value("y", TensorType("float16", (2, 3)))
    with pytest.raises(ShapeError):
        infer(op, (x, y))


def test_the_verifier_names_the_line_of_a_mix() -> None:
    make, x = Maker(), tokens(4)
    graph = make.graph(x, y=make(Scale(2.0), make(Linear(), x, make.weight(4, 4))))
    span = Span(Source("model.yaml", "flow:\n  - linear: w\n"), 2, 5, 2, 11)
    first, last = graph.nodes
    half = constant(CastWeight(Tensor("w", (4, 4)), "float16"))
    mixed = replace(first, inputs=(first.inputs[0], half), origin=Origin("linear", "linear", span))
    with pytest.raises(
        InternalError, match=r"linear of model.yaml:2:5 linear: .*'weight' is float16, and 'x' is float32"
    ):
        verify(replace(graph, nodes=(mixed, last)), None, "a_pass")


def test_the_verifier_holds_a_constant_to_its_type() -> None:
    make, x = Maker(), tokens(4)
    graph = make.graph(x, y=make(Linear(), x, make.weight(4, 4)))
    (node,) = graph.nodes
    lying = Value("w", TensorType("float32", (4, 4)), CastWeight(Tensor("w", (4, 4)), "float16"))
    with pytest.raises(InternalError, match=r"is float16\[4, 4\], its type says float32\[4, 4\]"):
        verify(replace(graph, nodes=(replace(node, inputs=(node.inputs[0], lying)),)), None, "a_pass")


def test_equal_names_of_other_types_are_other_weights() -> None:
    single, double = Tensor("w", (2,)), Tensor("w", (2,), "int64")
    assert len({w.key for w in (single, double, CastWeight(single, "float16"), CastWeight(single, "bfloat16"))}) == 4
    assert len({weight_name(w) for w in (single, double, CastWeight(single, "float16"))}) == 3
    tables = [Generated("rope", (2,), lambda: np.zeros(2, np.float32), dtype) for dtype in ("float32", "float16")]
    assert tables[0].key != tables[1].key


@pytest.mark.parametrize("dtype", HALF)
def test_a_cast_weight_rounds_to_nearest_even(dtype: str) -> None:
    step = 2.0 ** (1 - BITS[dtype])
    values = np.array([1.0, 1 + step / 2, 1 + 3 * step / 2, 1 + step * 0.51, -(1 + step * 0.49)], np.float32)
    weight = CastWeight(Tensor("w", (5,)), dtype)
    made = weight.evaluate(lambda name, rows: values if rows is None else values[rows])
    assert weight.nbytes == made.nbytes == 10
    np.testing.assert_array_equal(made.astype(np.float64), [1.0, 1.0, 1 + 2 * step, 1 + step, -1.0])
    (computed,) = Cast(dtype).reference(values)
    np.testing.assert_array_equal(made, computed)
    np.testing.assert_array_equal(weight.rows(lambda name, rows: values[rows or slice(None)], 1, 3), made[1:3])


@pytest.mark.parametrize("dtype", HALF)
def test_a_number_too_large_for_its_type_is_refused(dtype: str) -> None:
    most = largest(dtype)
    values = np.array([1.0, most, -most, 3.4e38], np.float32)
    made = CastWeight(Tensor("w", (4,)), dtype).evaluate(lambda name, rows: values)
    check_finite(made[:3], "w")
    with pytest.raises(WeightsError, match=r"tensor 'w' holds inf at \[3\]"):
        check_finite(made, "w")


def test_norms_and_scores_of_half_precision_do_not_overflow() -> None:
    """Squares and products of 300 are beyond 65504; HuggingFace takes them in float32."""
    x = np.full((1, 4, 8), 300, np.float16)
    (y,) = Norm("rms", 1e-6).reference(x)
    np.testing.assert_array_equal(y, np.ones_like(x))
    (z,) = Attention(1, 1, 1.0, CAUSAL).reference(x, x, x)
    np.testing.assert_array_equal(z, x)


def test_classes_of_types_are_types() -> None:
    assert {*FLOAT, *INTEGER} <= set(ANY)
    assert all(numpy_dtype(name).name == name for name in ANY)
