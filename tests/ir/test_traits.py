"""What operators say of themselves is true: each trait is held to the operator's meaning in numpy."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import pytest

import flowc.ir.core
import flowc.ir.kernel
from flowc.ir.core.attention import Attention, AttentionMask
from flowc.ir.core.cast import Cast
from flowc.ir.core.cross_attention import CrossAttention
from flowc.ir.core.elementwise import Binary, Scale, Softcap, Unary
from flowc.ir.core.experts import Experts
from flowc.ir.core.gather import Gather
from flowc.ir.core.layout import Concat, Reshape, Slice, Split, Transpose
from flowc.ir.core.linear import Linear
from flowc.ir.core.norm import Norm
from flowc.ir.core.pool import Pool
from flowc.ir.core.positions import Positions, TakeFirst, TakeLast
from flowc.ir.core.recurrent import CausalConv, DeltaScan
from flowc.ir.core.rope import Rope
from flowc.ir.core.token_positions import AllOnes
from flowc.ir.kernel.attention import MultiHeadAttention, OnnxAttention
from flowc.ir.kernel.cross_attention import OnnxCrossAttention
from flowc.ir.kernel.experts import ExpertLoop, MoE
from flowc.ir.kernel.group_query import GroupQueryAttention, MaskBias, PackedGroupQueryAttention
from flowc.ir.kernel.matrix import FusedMatMul, Gemm
from flowc.ir.kernel.norms import LayerNormalization, RmsNormalization
from flowc.ir.kernel.recurrent import (
    CausalConvWithState,
    ConvStep,
    ConvTokens,
    DeltaChunks,
    DeltaStep,
    LinearAttention,
)
from flowc.ir.kernel.skip_norm import SkipRmsNormalization
from flowc.ir.op import REGISTRY, Array, Op
from flowc.ir.traits import Traits
from flowc.ir.types import TensorType
from flowc.ir.visibility import CAUSAL, Visibility
from flowc.ir.weights.expressions import Constant, Weight

assert flowc.ir.core, flowc.ir.kernel  # imported for the operators that they register

RNG = np.random.default_rng(5)
B, S, W = 2, 5, 8


@dataclass(frozen=True)
class Case:
    """An operator with operands of two rows of five tokens, in order or by name."""

    op: Op
    operands: tuple[Array | None, ...]

    @property
    def types(self) -> list[TensorType | None]:
        return [TensorType(a.dtype.name, a.shape) if a is not None else None for a in self.operands]

    def __str__(self) -> str:
        return self.op.name

    def given(self, operand: str) -> Array | None:
        index = self.op.index_of(operand)
        return self.operands[index] if index < len(self.operands) else None

    def results(self, **changed: Array | None) -> tuple[Array, ...]:
        return self.op.reference(*self.op.arrange(self.operands, **changed))


def floats(*shape: int) -> Array:
    return RNG.standard_normal(shape).astype(np.float32)


def whole(high: int, *shape: int) -> Array:
    return RNG.integers(0, high, shape)


def case(op: Op, *operands: Array | None, **named: Array | None) -> Case:
    return Case(op, op.arrange(operands, **named))


TOKENS, MASK = floats(B, S, W), np.array([[1, 1, 1, 1, 1], [0, 1, 1, 1, 0]])
ATTENTION = {"q": TOKENS, "k": floats(B, S, 4), "v": floats(B, S, 4)}
PAST = {"past_key": floats(B, 1, 3, 4), "past_value": floats(B, 1, 3, 4)}
GIVEN, KEPT = (floats(B, 1, 3, 4), floats(B, 1, 3, 4)), np.array([[1, 1, 1], [0, 1, 1]])
GATES = {"g": -np.abs(floats(B, S, 2)), "beta": floats(B, S, 2)}
DELTA = {"q": floats(B, S, 4), "k": floats(B, S, 4), "v": TOKENS, **GATES}
STATE = floats(B, 2, 4, 4)

LINEAR = (TOKENS, floats(3, W), floats(3))
EXPERTS = (TOKENS, floats(B, S, 4), floats(4, 6, W), floats(4, W, 3))
CONV = (TOKENS, floats(W, 1, 3), floats(W), floats(B, W, 2), MASK)

KERNELS = (
    *(case(op, *LINEAR) for op in (FusedMatMul(), Gemm())),
    case(RmsNormalization("rms", 1e-5, groups=2), TOKENS, floats(4)),
    case(LayerNormalization("layer", 1e-5), TOKENS, floats(W), floats(W)),
    case(OnnxAttention(2, 1, 0.5, CAUSAL), **ATTENTION, **PAST),
    case(OnnxCrossAttention(2, 1, 0.5), TOKENS, *GIVEN, mask=KEPT[:, None, None] != 0),
    *(case(op, *EXPERTS) for op in (MoE(2, True), ExpertLoop(2, True))),
    case(SkipRmsNormalization(1e-5), TOKENS, floats(B, S, W), floats(W)),
    case(MultiHeadAttention(2, 0.5), TOKENS, floats(B, S, W), floats(B, S, W), floats(1, 2, S, S)),
    case(
        PackedGroupQueryAttention(GroupQueryAttention(2, 1, 0.5)),
        floats(B, S, 16),
        **PAST,
        cos=floats(9, 2),
        sin=floats(9, 2),
    ),
    case(ExpertLoop(2, True, transposed=True), *EXPERTS[:2], *(w.swapaxes(1, 2) for w in EXPERTS[2:])),
    *(case(op(1, 2, 0.5), **DELTA, state=STATE, mask=MASK) for op in (LinearAttention, DeltaStep, DeltaChunks)),
    *(case(op, *CONV) for op in (CausalConvWithState(), ConvStep(), ConvTokens())),
)

CASES = (
    case(Linear(), *LINEAR),
    case(Norm("layer", 1e-5), TOKENS, floats(W), floats(W)),
    case(Norm("rms", 1e-5, offset=1.0), TOKENS, floats(W)),
    case(Gather(), floats(11, W), whole(11, B, S)),
    case(Unary("silu"), TOKENS),
    case(Binary("add"), TOKENS, floats(W)),
    case(Binary("mul"), TOKENS, floats(B, S, W)),
    case(Cast("float32"), TOKENS),
    case(Cast("float64"), TOKENS * 3),
    case(Scale(1.0), TOKENS),
    case(Scale(2.0), TOKENS),
    case(Softcap(3.0), TOKENS),
    case(Experts(2, True), *EXPERTS),
    case(Rope(2), TOKENS, floats(B, S, 2), floats(B, S, 2)),
    case(Rope(2), TOKENS, floats(9, 2), floats(9, 2), whole(9, B, S)),
    case(Split((3, 5)), TOKENS),
    case(Split((8,)), TOKENS),
    case(Concat(2), TOKENS, floats(B, S, 3)),
    case(Concat(1), TOKENS),
    case(Concat(1), TOKENS, floats(B, S, W)),
    case(Slice(2, 1, 4), TOKENS),
    case(Slice(1, 0, 5), TOKENS),
    case(Slice(1, 1, 4), TOKENS),
    case(Slice(0, 0), TOKENS),
    case(Reshape((B, S, 2, 4)), TOKENS),
    case(Reshape((B, S, W)), TOKENS),
    case(Transpose((0, 2, 1)), TOKENS),
    case(Transpose((0, 1, 2)), TOKENS),
    case(Pool("mean"), TOKENS, MASK),
    case(Pool("last"), TOKENS, MASK),
    case(CrossAttention(2, 1, 0.5), TOKENS, *GIVEN, KEPT),
    case(Positions(), TOKENS, MASK),
    case(TakeLast(), TOKENS, MASK),
    case(TakeLast(), TOKENS[:, :1], MASK),
    case(TakeFirst(), TOKENS[:, :1], MASK[:, :1]),
    case(AllOnes(), TOKENS),
    case(Attention(2, 1, 0.5, CAUSAL), **ATTENTION, **PAST, key_mask=np.ones((B, S + 3), np.int64)),
    case(Attention(2, 1, 0.5, Visibility.around(1)), **ATTENTION, key_mask=MASK, bias=floats(1, 2, S, S)),
    case(AttentionMask(CAUSAL), TOKENS, MASK),
    case(GroupQueryAttention(2, 1, 0.5), **ATTENTION, **PAST, cos=floats(9, 2), sin=floats(9, 2)),
    case(MaskBias(), MASK[:, None, None] != 0, floats(B, 1, 1, S)),
    case(DeltaScan(1, 2, 0.5), **DELTA, state=STATE, mask=MASK),
    case(CausalConv(), *CONV),
    *KERNELS,
)

each = partial(pytest.mark.parametrize, argvalues=CASES, ids=str)


def no_weights(name: str, rows: slice | None) -> Array:
    raise AssertionError(f"a constant reads the weight {name}")


def equal(found: tuple[Array, ...], wanted: tuple[Array, ...], tolerance: float = 0.0) -> None:
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    "trait",
    ["neutral", "is_identity", "tokenwise", "works_by_token", "scales_with", "of_constants", "tables", "uniform"],
)
def test_every_operator_with_a_trait_has_a_case(trait: str) -> None:
    told = {cls for cls in REGISTRY.values() if getattr(cls, trait) is not getattr(Traits, trait)}
    assert told
    assert told <= {type(case.op) for case in CASES}


@each("case")
def test_neutral_operands_say_nothing(case: Case) -> None:
    for operand, number in case.op.neutral().items():
        given = case.given(operand)
        if given is None:
            continue
        needed_by = {"gain": {"bias": None}}.get(operand, {})  # a bias needs a gain
        filled = np.full_like(given, number)
        equal(case.results(**needed_by, **{operand: filled}), case.results(**needed_by, **{operand: None}))


@each("case")
def test_an_identity_gives_its_first_operand(case: Case) -> None:
    same = case.results()[0].shape == TOKENS.shape and np.array_equal(case.results()[0], TOKENS)
    one = case.operands[0] is not None and case.operands[0].shape[1:2] == (1,)
    assert case.op.is_identity(case.types) == (same or (one and isinstance(case.op, (TakeLast, TakeFirst))))
    if case.op.is_identity(case.types):
        equal(case.results(), (case.operands[0],) if case.operands[0] is not None else ())


@each("case")
def test_a_token_is_made_of_that_token_alone(case: Case) -> None:
    results = tuple(TensorType(a.dtype.name, a.shape) for a in case.results())
    if not case.op.works_by_token(case.types, results):
        return
    for token in range(S):
        cut: list[Array | None] = []
        for index, array in enumerate(case.operands):
            named = not case.op.tokenwise or case.op.operands[index] in case.op.tokenwise
            over = named and array is not None and array.shape[:2] == (B, S)
            cut.append(array[:, token : token + 1] if array is not None and over else array)
        equal(case.op.on_one_token().reference(*cut), tuple(a[:, token : token + 1] for a in case.results()), 1e-5)


@each("case")
def test_what_scales_with_its_weights_does(case: Case) -> None:
    if not case.op.scales_with:
        return
    scaled = {n: 2 * a for n in case.op.scales_with if (a := case.given(n)) is not None}
    equal(case.results(**scaled), tuple(2 * a for a in case.results()))


@each("case")
def test_of_constants_is_what_it_means(case: Case) -> None:
    weights: list[Weight | None] = [Constant(a) if a is not None else None for a in case.operands]
    folded = case.op.of_constants(weights)
    if folded is not None:
        equal((folded.evaluate(no_weights),), case.results())


def test_one_row_of_a_table_is_known() -> None:
    table, ids = floats(11, W), np.array([[7]])
    folded = Gather().of_constants((Constant(table), Constant(ids)))
    assert folded is not None
    equal((folded.evaluate(no_weights),), (table[ids],))


@each("case")
def test_rows_of_a_table_that_nobody_reads_do_not_matter(case: Case) -> None:
    for table, reader in case.op.tables.items():
        rows, read = case.given(table), case.given(reader)
        if rows is None or read is None:
            continue
        used = set(read.ravel().tolist()) if read.dtype == np.int64 else set(range(len(rows) - 1))
        assert read.dtype != np.int64 or case.op.index_bound(reader, case.types, None) == len(rows)
        changed = rows.copy()
        changed[[row for row in range(len(rows)) if row not in used]] = 1e6
        equal(case.results(**{table: changed}), case.results())


@each("case")
def test_a_uniform_result_is_that_number(case: Case) -> None:
    if case.op.uniform is not None:
        assert all((a == case.op.uniform).all() for a in case.results())
