"""What the rooms around the IR ask of an operator: each answer stands with the operator, and has a safe default.

    class Gather(Op, name="gather", operands=("table", "ids")):
        category = "table"                  # the colour of its box
        tables = {"table": "ids"}           # costs: the rows that ids ask for; verify: ids below the table's length
        tokenwise = ("ids",)                # hoist_token_selection: a token of the result needs that token's id alone
        scales_with = ("table",)            # fold_weights: a factor behind it may be moved into the table

A default promises nothing: such an operator keeps all its operands, mixes tokens, takes no part in folding, reads its
weights whole and costs no multiply-adds. A pass whose rule is about one operator, such as `fold_rope`, names it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, Self

from flowc.ir.types import TensorType

if TYPE_CHECKING:
    from flowc.ir.weights.expressions import Weight

Category = Literal["matrix", "table", "norm", "rope", "attention", "mask", "custom", "step"]
"""Kinds of operators that a drawing tells apart; a `step` is a small one between the others."""

Types = Sequence[TensorType | None]
"""Types of the operands in order, None for one that is absent; absent ones at the end may be left out."""

Sizes = Sequence[tuple[int, ...] | None]
"""Shapes of the operands in the same way, all dimensions known."""


class Traits:
    """Facts of an operator, with defaults that hold for every operator."""

    name: ClassVar[str] = ""
    operands: ClassVar[tuple[str, ...]] = ()
    """Names of the operands in order; trailing ones may be left out, any may be None where `infer` allows it."""

    # How it is drawn

    category: ClassVar[Category] = "step"
    """Which colour it has."""

    def caption(self) -> str:
        """What stands in its box; empty for its name in its stage, where that says more (a weight's)."""
        return self.name.replace("_", " ")

    # What it costs

    tables: ClassVar[Mapping[str, str]] = {}
    """Operands of which rows are read, each with the operand that reads one row per element of its first two axes."""

    measured: ClassVar[tuple[str, ...]] = ()
    """Operands of which nothing but the size is read."""

    def macs(self, inputs: Sizes, outputs: Sequence[tuple[int, ...]]) -> int:
        """Multiply-adds for operands and results of these sizes; 0 for elementwise and data-moving operators."""
        return 0

    def scratch(self, inputs: Sizes, outputs: Sequence[tuple[int, ...]]) -> int:
        """Elements of the largest array that `reference` makes beside operands and results, where it is larger."""
        return 0

    # What passes may do with it

    tokenwise: ClassVar[tuple[str, ...]] = ()
    """Operands [batch, sequence, ...] of whose token t alone token t of every result is made; empty when tokens mix."""

    broadcasts: ClassVar[bool] = False
    """Whether operands of fewer dimensions stand at the last axes of the result, as numpy broadcasts them."""

    scales_with: ClassVar[tuple[str, ...]] = ()
    """Operands that, multiplied by a number all together, multiply the only result by it."""

    uniform: ClassVar[float | None] = None
    """The number that all elements of the results are, whatever the operands are."""

    def neutral(self) -> Mapping[str, float]:
        """Operands that say nothing when they are this number everywhere: a bias of 0, a padding mask of 1.

        Such an operand is left out where `infer` allows it.
        """
        return {}

    def is_identity(self, types: Types) -> bool:
        """Whether the only result is the first operand as it is, for operands of these types."""
        return False

    def works_by_token(self, types: Types, results: Sequence[TensorType]) -> bool:
        """Whether token t of the results [batch, sequence, ...] is made of token t of the operands.

        Where that depends on the types, `tokenwise` is empty, and every operand over the same tokens counts.
        """
        return bool(self.tokenwise)

    def on_one_token(self) -> Self:
        """The same for one token alone, where `works_by_token` holds and attributes know how many there are."""
        return self

    def of_constants(self, operands: Sequence[Weight | None]) -> Weight | None:
        """The only result for constant operands (None: absent) as a weight expression; None where there is none."""
        return None

    @property
    def wide(self) -> bool:
        """Whether it computes in float32 in a graph of half precision, as its reference model does."""
        return False

    # How it takes a cache

    @property
    def is_compact(self) -> bool:
        """Whether a row of its cache has as many columns as its mask has ones, not one for each column of the mask."""
        return False

    def compacted(self) -> Self | None:
        """The same beside a compact cache; None for what reads a mask or a cache column by column."""
        return None

    @property
    def one_row_over_a_past(self) -> bool:
        """Whether a call of several new tokens over a past has a batch of one: its runtime refuses others."""
        return False

    # How it is tried and compared

    def index_bound(self, operand: str, types: Types, context: int | None) -> int | None:
        """What the integers of an operand stay below; None where they index nothing.

        `context` is the greatest number of positions of the build, if it is known.
        """
        rows = [types[self.operands.index(table)] for table, reader in self.tables.items() if reader == operand]
        sizes = [t.shape[0] for t in rows if t is not None]
        return min((n for n in sizes if isinstance(n, int)), default=None)

    def trial_sizes(self, types: Types) -> Mapping[str, int]:
        """Sizes of operands' own dimensions, by name, that show more than any small number would."""
        return {}

    def windows(self) -> tuple[int, ...]:
        """How many tokens it looks at, itself included, where not at all: some inputs are longer than that."""
        return ()

    def switches(self) -> tuple[int, ...]:
        """Numbers of tokens past which it computes something else: some inputs pass them, some end just before."""
        return ()

    def router(self) -> tuple[str, int] | None:
        """The operand whose largest numbers choose what is computed for a token, and how many; None where none does."""
        return None

    specified_at_padding: ClassVar[bool] = False
    """Whether its results mean something for padded keys too, as a mask's do, which says that they are hidden."""
