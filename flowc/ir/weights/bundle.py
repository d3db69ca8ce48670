"""Weights that are made together: one evaluation gives several initializers.

class Packed(Bundle):       values, scales and zero points of one quantised matrix
Member(packed, "scales")    one of them, as a weight
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from flowc.ir.types import require
from flowc.ir.weights.expressions import Array, Read, Weight


@dataclass(frozen=True, slots=True)
class MemberType:
    """Element type and sizes of one member of a bundle."""

    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Bundle:
    """Base of what is made together. The data file holds the members one after another, made once."""

    @property
    @abstractmethod
    def members(self) -> Mapping[str, MemberType]:
        """The members by name, in the order in which they are stored."""

    @property
    @abstractmethod
    def key(self) -> str:
        """Canonical text of everything that decides the values."""

    @property
    @abstractmethod
    def operands(self) -> tuple[Weight, ...]:
        """Expressions that the members are computed from."""

    @abstractmethod
    def make(self, read: Read) -> Mapping[str, Array]:
        """The values of all members, C-contiguous."""


@dataclass(frozen=True)
class Member(Weight):
    """One member of a bundle."""

    bundle: Bundle
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        return self.bundle.members[self.name].shape

    @property
    def dtype(self) -> str:
        return self.bundle.members[self.name].dtype

    def spell(self) -> str:
        return f"{self.bundle.key}.{self.name}"

    @property
    def operands(self) -> tuple[Weight, ...]:
        return self.bundle.operands

    def evaluate(self, read: Read) -> Array:
        return self.of(self.bundle.make(read))

    def of(self, made: Mapping[str, Array]) -> Array:
        """This member of what the bundle made; ShapeError where that is not what was declared."""
        values = np.ascontiguousarray(made[self.name])
        declared = self.bundle.members[self.name]
        same = values.shape == declared.shape and values.dtype.name == declared.dtype
        require(same, f"{self.key}: made {values.dtype.name}{list(values.shape)}, declared {declared}")
        return values
