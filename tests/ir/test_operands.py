"""Operands are set and read by name; a name that an operator does not have, or a wrong number of them, is refused."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from flowc.errors import InternalError
from flowc.ir.core.attention import Attention
from flowc.ir.core.elementwise import Unary
from flowc.ir.core.layout import Concat
from flowc.ir.core.linear import Linear
from flowc.ir.graph import Graph, Node, Origin, Output, Rewriter, Value, infer
from flowc.ir.kernel.group_query import GroupQueryAttention
from flowc.ir.op import REGISTRY, Op
from flowc.ir.phases import ENCODE
from flowc.ir.types import ShapeError, TensorType
from flowc.ir.verify import verify

B, S, W = 2, 5, 8
X, TABLE = Value("x", TensorType("float32", (B, S, W))), Value("t", TensorType("float32", (3, W)))


def node(op: Op, *inputs: Value | None) -> Node:
    return Node(op, inputs, (Value("y", TensorType("float32", (B, S, 3))),), Origin("stage", "test"))


def test_operands_are_set_by_name() -> None:
    plain = node(Linear(), X, TABLE)
    bias = Value("b", TensorType("float32", (3,)))
    assert plain.with_operands(bias=bias).inputs == (X, TABLE, bias)
    assert plain.with_operands(bias=bias).with_operands(bias=None).inputs == (X, TABLE)
    assert Attention(2, 2, 0.5).arrange((X, X, X), mask=X) == (X, X, X, None, None, None, None, X)
    assert Attention(2, 2, 0.5).arrange((X, X, X, None, None)) == (X, X, X)


def test_an_unknown_operand_is_refused() -> None:
    plain = node(Linear(), X, TABLE)
    for ask in (lambda: plain.with_operands(mask=X), lambda: plain.input("mask"), lambda: plain.need("mask")):
        with pytest.raises(InternalError, match="'linear' has no operand 'mask'; it has x, weight, bias"):
            ask()
    with pytest.raises(InternalError, match=r"linear of stage has no operand 'bias'"):
        plain.need("bias")


@pytest.mark.parametrize(
    ("op", "inputs", "message"),
    [
        (Linear(), (X, TABLE, None, X), r"linear: takes 3 operands \(x, weight, bias\), not 4"),
        (Linear(), (X,), "linear: the operand 'weight' is absent"),
        (Linear(), (None, TABLE), "linear: the operand 'x' is absent"),
        (Concat(0), (), "concat: takes one operand or more"),
        (Concat(0), (X, None), "concat: takes one operand or more, and each must be there"),
    ],
)
def test_a_wrong_number_of_operands_is_refused(op: Op, inputs: tuple[Value | None, ...], message: str) -> None:
    with pytest.raises(ShapeError, match=message):
        infer(op, inputs)
    made = node(op, *inputs)
    graph = Graph(ENCODE, (X, TABLE), (Output("y", made.outputs[0]),), (made,))
    with pytest.raises(InternalError, match=message):
        verify(graph, None, "a test")


def test_operands_that_the_meaning_does_not_take_are_no_operator() -> None:
    def infer_wrongly(self: Any, x: TensorType) -> tuple[TensorType, ...]:
        return (x,)

    body: Mapping[str, Any] = {"infer": infer_wrongly, "reference": Unary.reference}
    with pytest.raises(TypeError, match="does not take the operands"):
        type("Wrong", (Op,), dict(body), name="wrong", operands=("x", "mask"))
    assert "wrong" not in REGISTRY


def test_a_node_is_remade_with_named_operands() -> None:
    three = [Value(n, TensorType("float32", (B, S, W))) for n in "qkv"]
    y = Value("y", TensorType("float32", (B, S, W)))
    old = Node(Attention(2, 2, 0.5), tuple(three), (y,), Origin("stage", "test"))
    seen = Value("seen", TensorType("bool", (1, 1, S, S)))
    rewriter = Rewriter(Graph(ENCODE, (*three, seen), (Output("y", y),), (old,)))
    assert rewriter.remake(old, Attention(2, 2, 0.25), mask=seen) == (y,), "the same kind keeps what it has"
    made = rewriter.maker(y)
    assert made is not None
    assert made.inputs == (*three, None, None, None, None, seen)
    kernel, (q, k, v) = GroupQueryAttention(2, 2, 0.5), three
    with pytest.raises(ShapeError, match="group_query_attention: the operand 'q' is absent"):
        rewriter.remake(old, kernel, bias=seen)
    assert kernel.arrange(k=k, q=q, v=v) == (q, k, v)
