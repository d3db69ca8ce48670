"""Where weights lie in the data files, and that the files hold what was planned."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from flowc.build.data import ALIGNMENT, Layout, plan, write
from flowc.errors import WeightsError
from flowc.ir.types import ShapeError
from flowc.ir.weights.bundle import Bundle, Member, MemberType
from flowc.ir.weights.expressions import Array, Concat, Read, Rows, Tensor, Weight
from flowc.weights.checkpoint import check_finite

WIDTH = 512
MADE: list[str] = []


def values(name: str, rows: slice | None) -> Array:
    seed = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16)
    whole = np.random.default_rng(seed).standard_normal((4, WIDTH)).astype(np.float32)
    return whole if rows is None else whole[rows]


def tensor(name: str) -> Tensor:
    return Tensor(name, (4, WIDTH))


@dataclass(frozen=True)
class Quantised(Bundle):
    """A matrix as whole numbers and a scale for each row; counts how often it is made."""

    of: Tensor
    scale_dtype: str = "float32"
    made: list[int] = field(default_factory=list[int], compare=False)

    @property
    def members(self) -> Mapping[str, MemberType]:
        return {
            "values": MemberType("int64", self.of.shape),
            "scales": MemberType(self.scale_dtype, (self.of.shape[0], 300)),
        }

    @property
    def key(self) -> str:
        return f"quantised({self.of.key})"

    @property
    def operands(self) -> tuple[Weight, ...]:
        return (self.of,)

    def make(self, read: Read) -> Mapping[str, Array]:
        self.made.append(1)
        whole = self.of.evaluate(read)
        scales = np.repeat(np.abs(whole).max(axis=1, keepdims=True) / 7, 300, axis=1)
        return {"values": np.rint(whole / scales[:, :1]).astype(np.int64), "scales": scales}


def stored(layout: Layout, folder: Path) -> dict[str, bytes]:
    """The bytes at each weight's place, by key."""
    weights = {w.key: w for _, w in layout.stored}
    found: dict[str, bytes] = {}
    for key, weight in weights.items():
        place = layout.places[key]
        content = (folder / place.file).read_bytes()
        found[key] = content[place.offset : place.offset + weight.nbytes]
    return found


def unchecked(piece: Array, weight: Weight, row: int) -> None:
    """Any numbers will do."""


def written(layout: Layout, folder: Path) -> dict[str, str]:
    return write(layout, folder, values, unchecked)


def test_one_file(tmp_path: Path) -> None:
    weights = [tensor("a"), tensor("b")]
    layout = plan(weights, "m.data")
    digests = written(layout, tmp_path)
    assert [f.name for f in layout.files] == ["m.data"]
    assert digests == {"m.data": hashlib.sha256((tmp_path / "m.data").read_bytes()).hexdigest()}
    assert (tmp_path / "m.data").stat().st_size == layout.size
    assert all(place.offset % ALIGNMENT == 0 for place, _ in layout.stored)
    assert stored(layout, tmp_path) == {w.key: w.evaluate(values).tobytes() for w in weights}


def test_no_file_is_larger_than_asked_for_but_that_of_one_large_weight(tmp_path: Path) -> None:
    large = Concat(tuple(tensor(f"part{i}") for i in range(4)))
    weights = [tensor("a"), tensor("b"), large, tensor("c"), Rows(tensor("b"), 1, 3)]
    layout = plan(weights, "m.data", shard_bytes=2 * 4 * 4 * WIDTH)
    written(layout, tmp_path)
    assert [f.name for f in layout.files] == [f"m.data-0000{i}-of-00003" for i in (1, 2, 3)]
    assert [[w.key for _, w in f.stored] for f in layout.files] == [
        [tensor("a").key, tensor("b").key], [large.key], [tensor("c").key],
    ]  # fmt: skip
    assert [f.size <= 2 * 4 * 4 * WIDTH for f in layout.files] == [True, False, True]
    assert stored(layout, tmp_path) == {w.key: w.evaluate(values).tobytes() for w in weights[:4]}
    rows, whole = layout.places[weights[4].key], layout.places[tensor("b").key]
    assert (rows.file, rows.offset) == (whole.file, whole.offset + 4 * WIDTH)


def test_members_of_a_bundle_are_made_once_and_lie_together(tmp_path: Path) -> None:
    first, second = Quantised(tensor("a")), Quantised(tensor("b"))
    weights = [Member(first, "values"), tensor("c"), Member(second, "values"), Member(first, "scales"),
               Member(second, "scales")]  # fmt: skip
    layout = plan(weights, "m.data", shard_bytes=1)
    written(layout, tmp_path)
    assert (first.made, second.made) == ([1], [1])
    assert [[w.key for _, w in f.stored] for f in layout.files] == [
        [Member(first, "values").key, Member(first, "scales").key],
        [tensor("c").key],
        [Member(second, "values").key, Member(second, "scales").key],
    ]
    assert stored(layout, tmp_path) == {w.key: w.evaluate(values).tobytes() for w in weights}


def test_a_member_is_what_its_bundle_declares(tmp_path: Path) -> None:
    wrong = Member(Quantised(tensor("a"), "float16"), "scales")
    with pytest.raises(ShapeError, match="made float32"):
        written(plan([wrong], "m.data"), tmp_path)


def test_a_weight_larger_than_a_piece_is_written_piece_by_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowc.build.data.PIECE", 2 * 4 * WIDTH)
    whole = Concat(tuple(tensor(name) for name in "abc"))
    layout = plan([whole], "m.data")
    seen: list[tuple[int, int]] = []
    write(layout, tmp_path, values, lambda piece, weight, row: seen.append((row, len(piece))))
    assert seen == [(row, 2) for row in range(0, 12, 2)]
    assert stored(layout, tmp_path) == {whole.key: whole.evaluate(values).tobytes()}


def test_a_number_that_is_not_finite_is_named_by_its_row_in_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoiled(name: str, rows: slice | None) -> Array:
        whole = values(name, None).copy()
        whole[3, 5] = np.inf
        return whole if rows is None else whole[rows]

    monkeypatch.setattr("flowc.build.data.PIECE", 4 * WIDTH)
    with pytest.raises(WeightsError, match=r"tensor 'a' holds inf at \[3, 5\]"):
        write(plan([tensor("a")], "m.data"), tmp_path, spoiled, lambda piece, _, row: check_finite(piece, "a", row))
