"""What the verifier refuses, in a graph as it is and after a pass that kept some of its nodes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from flowc.errors import InternalError
from flowc.ir.core.elementwise import Scale, Unary
from flowc.ir.core.linear import Linear
from flowc.ir.graph import Graph, Output, Value, constant
from flowc.ir.types import TensorType
from flowc.ir.verify import verify
from flowc.ir.weights.expressions import Tensor
from tests.passes.graphs import Maker, tokens

WIDTH = 4


def chain() -> Graph:
    """X -> linear -> silu -> scale."""
    make, x = Maker(), tokens(WIDTH)
    y = make(Scale(2.0), make(Unary("silu"), make(Linear(), x, make.weight(WIDTH, WIDTH))))
    return make.graph(x, y=y)


def swapped(graph: Graph) -> Graph:
    """Two operators in the wrong order: the very same nodes."""
    first, second, *rest = graph.nodes
    return replace(graph, nodes=(second, first, *rest))


def doubled(graph: Graph) -> Graph:
    """An operator twice."""
    return replace(graph, nodes=(*graph.nodes, graph.nodes[-1]))


def dropped(graph: Graph) -> Graph:
    """Without the operator that makes what others read."""
    return replace(graph, nodes=graph.nodes[1:])


def mistyped(graph: Graph) -> Graph:
    """An operator whose result says another type than its operator makes."""
    *rest, last = graph.nodes
    wrong = Value("wrong", TensorType("float32", (1, 1)))
    return replace(graph, nodes=(*rest, replace(last, outputs=(wrong,))), outputs=(Output("y", wrong),))


def misfed(graph: Graph) -> Graph:
    """An operator whose operand was replaced by one that does not fit."""
    first, *rest = graph.nodes
    return replace(graph, nodes=(replace(first, inputs=(first.inputs[0], constant(Tensor("v", (3, 3))))), *rest))


def misshapen(graph: Graph) -> Graph:
    """A constant whose type says another shape than its weight has."""
    first, *rest = graph.nodes
    value = Value("v", TensorType("float32", (WIDTH, WIDTH)), Tensor("v", (WIDTH, WIDTH + 1)))
    return replace(graph, nodes=(replace(first, inputs=(first.inputs[0], value)), *rest))


def renamed(graph: Graph) -> Graph:
    """Another value under a name that is taken."""
    *rest, last = graph.nodes
    same = Value(rest[0].outputs[0].name, last.outputs[0].type)
    return replace(graph, nodes=(*rest, replace(last, outputs=(same,))), outputs=(Output("y", same),))


def unmade(graph: Graph) -> Graph:
    """A result that nothing makes."""
    return replace(graph, outputs=(*graph.outputs, Output("z", Value("z", graph.outputs[0].value.type))))


def twice_named(graph: Graph) -> Graph:
    """Two results under one name."""
    return replace(graph, outputs=(*graph.outputs, *graph.outputs))


REFUSED: dict[Callable[[Graph], Graph], str] = {
    swapped: "before it is made", doubled: "a second time", dropped: "before it is made", mistyped: "its results say",
    misfed: "linear", misshapen: "its type says", renamed: "a second time", unmade: "is never made",
    twice_named: "two outputs have the same name",
}  # fmt: skip


@pytest.mark.parametrize("wrong", REFUSED, ids=lambda f: f.__name__)
@pytest.mark.parametrize("kept", [False, True], ids=["alone", "after a pass"])
def test_what_is_not_well_formed_is_refused(wrong: Callable[[Graph], Graph], kept: bool) -> None:
    sound = chain()
    verify(sound, "core", "expand")
    with pytest.raises(InternalError, match=REFUSED[wrong]):
        verify(wrong(sound), "core", "a pass", sound if kept else None)
