"""Weights that several graphs pack differently lie in the data file once."""

from __future__ import annotations

from flowc.build.data import plan
from flowc.ir.weights.expressions import Concat, Rows, Tensor
from flowc.ir.weights.place import Place

A, B, C = (Tensor(name, (4, 2)) for name in "abc")  # 32 bytes each
AB = Concat((A, B))
ABC = Concat((AB, C))


def test_parts_of_parts_lie_in_the_whole() -> None:
    layout = plan([B, A, Rows(AB, 2, 6), Rows(B, 1, 3), AB, ABC], "data")
    assert [w.key for _, w in layout.stored] == [ABC.key]
    places = {w.key: layout.places[w.key].offset for w in (ABC, AB, A, B, Rows(AB, 2, 6), Rows(B, 1, 3))}
    assert list(places.values()) == [0, 0, 0, 32, 16, 40]
    assert layout.size == 96


def test_what_lies_in_the_checkpoint_is_used_there() -> None:
    found = {A.key: Place("model.safetensors", 100), ABC.key: None}
    layout = plan([A, ABC], "data", lambda w: found[w.key])
    assert layout.places[A.key] == Place("model.safetensors", 100)
    assert [w.key for _, w in layout.stored] == [ABC.key]
