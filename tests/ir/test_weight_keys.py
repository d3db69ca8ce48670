"""Keys of weight expressions: spelled once, however many expressions are made of one."""

from __future__ import annotations

from dataclasses import dataclass

from flowc.ir.weights.expressions import Affine, Derived, Rows, Tensor, Transpose

SPELLED: list[str] = []


@dataclass(frozen=True)
class Watched(Derived):
    """A weight that notes when its key is made."""

    def spell(self) -> str:
        SPELLED.append(self.of.key)
        return f"watched({self.of.key})"


def test_a_key_is_spelled_once() -> None:
    SPELLED.clear()
    watched = Watched(Tensor("w", (4, 4)))
    made = [Rows(watched, i, i + 1) for i in range(4)]
    keys = [Affine(Transpose(part, (1, 0)), 2.0).key for part in made * 2]
    assert keys[1] == 'affine(transpose(rows(watched(w"w"); 1:2); 1,0); 2.0, 0.0)'
    assert SPELLED == ['w"w"']
    assert hash(watched) == hash(Watched(Tensor("w", (4, 4))))  # what is kept is no part of the value
    assert watched == Watched(Tensor("w", (4, 4)))
