"""Weights as the checkpoint holds them: blocks of a quantised format, undecoded."""

from __future__ import annotations

from dataclasses import dataclass

from flowc.ir.weights.expressions import Array, Read, Weight


class AsStored(str):
    """The name of a tensor of which a reader gives the stored bytes, uint8 [rows, bytes of a row], undecoded."""

    __slots__ = ()


@dataclass(frozen=True)
class Blocks(Weight):
    """The blocks of a matrix [rows, columns] in a format such as `q4_1`: uint8 [rows, bytes of a row], row by row.

    Rows are HuggingFace's, in its order, also where the file holds them in another.
    """

    name: str
    form: str
    count: int
    row_bytes: int

    @property
    def shape(self) -> tuple[int, ...]:
        return (self.count, self.row_bytes)

    @property
    def dtype(self) -> str:
        return "uint8"

    def spell(self) -> str:
        return f'{self.form}"{self.name}"'

    @property
    def by_rows(self) -> bool:
        return True

    def evaluate(self, read: Read) -> Array:
        return read(AsStored(self.name), None)

    def rows(self, read: Read, start: int, stop: int) -> Array:
        return read(AsStored(self.name), slice(start, stop))
