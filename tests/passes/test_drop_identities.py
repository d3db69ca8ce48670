from __future__ import annotations

import numpy as np
import pytest

from flowc.ir.core.elementwise import Scale
from flowc.ir.core.layout import Concat, Reshape, Slice, Split, Transpose
from flowc.ir.core.linear import Linear
from flowc.ir.core.norm import Norm
from flowc.ir.core.pool import Pool
from flowc.ir.core.positions import Positions, TakeLast
from flowc.ir.core.recurrent import CausalConv, DeltaScan
from flowc.ir.core.token_positions import AllOnes
from flowc.ir.graph import Graph, Node, Origin, Output, Value, constant, infer
from flowc.ir.interpret import interpret
from flowc.ir.op import Op
from flowc.ir.phases import ENCODE
from flowc.ir.types import TensorType
from flowc.ir.weights.expressions import Constant
from flowc.passes.drop_identities import drop_identities
from tests.passes.graphs import filled
from tests.passes.making import apply

X = Value("x", TensorType("float32", ("batch_size", 1, 8)))


def chain(*steps: tuple[Op, tuple[Value, ...]]) -> Graph:
    """Operators one after another: each takes the results of the one before and its own constants."""
    values: tuple[Value, ...] = (X,)
    nodes: list[Node] = []
    for i, (op, more) in enumerate(steps):
        inputs = (*values, *more)
        values = tuple(Value(f"{op.name}{i}.{j}", t) for j, t in enumerate(infer(op, inputs)))
        nodes.append(Node(op, inputs, values, Origin("test", "test")))
    return Graph(ENCODE, (X,), tuple(Output(f"y{i}", v) for i, v in enumerate(values)), tuple(nodes))


W = constant(Constant(np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)))

GONE: list[tuple[str, list[tuple[Op, tuple[Value, ...]]]]] = [
    ("scale by one", [(Scale(1.0), ())]),
    ("the last of one token", [(TakeLast(), ())]),
    ("reshape to the same", [(Reshape(("batch_size", 1, 8)), ())]),
    ("split into one", [(Split((8,)), ())]),
    ("join of one", [(Concat(-1), ())]),
    ("split and joined", [(Split((3, 5)), ()), (Concat(2), ())]),
    ("transposed twice", [(Transpose((0, 2, 1)), ()), (Transpose((0, 2, 1)), ())]),
    ("transposed by nothing", [(Transpose((0, 1, 2)), ())]),
    ("all of an axis", [(Slice(2, 0, 8), ())]),
    ("an open slice", [(Slice(1, 0), ())]),
]
KEPT: list[tuple[str, list[tuple[Op, tuple[Value, ...]]]]] = [
    ("scale", [(Scale(1.5), ())]),
    ("joined along another axis", [(Split((4, 4)), ()), (Concat(1), ())]),
    ("transposed", [(Transpose((0, 2, 1)), ()), (Transpose((1, 0, 2)), ())]),
    ("a part", [(Slice(2, 1, 8), ())]),
    ("a bias", [(Linear(), (W, filled(0.5, 8)))]),
    ("an offset gain", [(Norm("rms", 1e-5, offset=1.0), (filled(1.0, 8),))]),
]


@pytest.mark.parametrize(("name", "steps"), GONE)
def test_what_changes_nothing_vanishes(name: str, steps: list[tuple[Op, tuple[Value, ...]]]) -> None:
    result = apply(drop_identities, chain(*steps))
    assert not result.after.nodes
    assert len(result.audit.fired) == 1
    assert result.after.outputs[0].value is X


@pytest.mark.parametrize(("name", "steps"), KEPT)
def test_what_changes_something_stays(name: str, steps: list[tuple[Op, tuple[Value, ...]]]) -> None:
    graph = chain(*steps)
    assert apply(drop_identities, graph).after is graph


@pytest.mark.parametrize(
    ("op", "operands", "left"),
    [
        (Linear(), (W, filled(0.0, 8)), 2),
        (Norm("layer", 1e-5), (filled(1.0, 8), filled(0.0, 8)), 1),
        (Norm("layer", 1e-5), (filled(2.0, 8), filled(0.0, 8)), 2),
        (Norm("rms", 1e-5), (filled(1.0, 8),), 1),
    ],
)
def test_neutral_operands_vanish(op: Op, operands: tuple[Value, ...], left: int) -> None:
    graph = chain((op, operands))
    result = apply(drop_identities, graph)
    assert len(result.after.nodes[0].inputs) == left
    feeds = {"x": np.random.default_rng(1).standard_normal((2, 1, 8)).astype(np.float32)}

    def read(name: str, rows: slice | None) -> np.ndarray:
        raise AssertionError(name)

    before, after = interpret(graph, feeds, read), interpret(result.after, feeds, read)
    np.testing.assert_array_equal(before["y0"], after["y0"])


def recurrent(op: Op, *operands: Value | None) -> Graph:
    """An operator with a mask of ones over tokens [2, 5, 8]."""
    x = Value("x", TensorType("float32", (2, 5, 8)))
    ones = Node(AllOnes(), (x,), (Value("ones", TensorType("int64", (2, 5))),), Origin("test", "test"))
    inputs = op.arrange((x, *operands), mask=ones.outputs[0])
    results = tuple(Value(f"r{i}", t) for i, t in enumerate(infer(op, inputs)))
    nodes = (ones, Node(op, inputs, results, Origin("test", "test")))
    return Graph(ENCODE, (x,), tuple(Output(v.name, v) for v in results), nodes)


RNG = np.random.default_rng(4)


def made(*shape: int) -> Value:
    return constant(Constant(RNG.standard_normal(shape).astype(np.float32)))


@pytest.mark.parametrize(
    "graph",
    [
        recurrent(TakeLast()),
        recurrent(Pool("mean")),
        recurrent(Positions()),
        recurrent(CausalConv(), made(8, 1, 3)),
        recurrent(DeltaScan(2, 2, 0.5), made(2, 5, 8), made(2, 5, 8), made(2, 5, 2), made(2, 5, 2)),
    ],
    ids=lambda graph: graph.nodes[-1].op.name,
)
def test_a_mask_of_ones_vanishes(graph: Graph) -> None:
    result = apply(drop_identities, graph)
    (node,) = result.after.nodes
    assert node.input("mask") is None
    feeds = {"x": RNG.standard_normal((2, 5, 8)).astype(np.float32)}

    def read(name: str, rows: slice | None) -> np.ndarray:
        raise AssertionError(name)

    before, after = interpret(graph, feeds, read), interpret(result.after, feeds, read)
    for name, array in before.items():
        np.testing.assert_array_equal(array, after[name])


def test_a_gain_stays_for_a_bias_that_needs_it() -> None:
    graph = chain((Norm("layer", 1e-5), (filled(1.0, 8), filled(0.5, 8))))
    assert apply(drop_identities, graph).after is graph
