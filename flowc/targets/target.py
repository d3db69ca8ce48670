"""What is said of a target: versions, and which kernel runs each operator."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from flowc.errors import SpecError
from flowc.ir.core.attention import Attention
from flowc.ir.dtypes import FLOAT
from flowc.ir.graph import MadeBy, Node
from flowc.ir.kernel.group_query import GroupQueryAttention
from flowc.ir.kernel.kernel import Kernel
from flowc.ir.op import Op
from flowc.ir.phases import Phase

AttentionForm = Literal["attention", "shared", "fused"]
"""How a decoder's attention runs.

attention   ONNX Attention; the cache is joined to the new keys
shared      GroupQueryAttention with a mask to add; it may write new keys where the past lies
fused       the same with the rope inside; keys of each row follow its own last one (compact cache)
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a target's table: a kernel for an operator, where it is used, and how that is known."""

    op: type[Op]
    kernel: type[Kernel]
    evidence: str
    """What was measured, and with which runtime; or which specification says it."""
    phases: tuple[Phase, ...] = ()
    """Phases in which it is used; every one when empty."""
    assume: tuple[str, ...] = ()
    """What a build must assume of padding; anything when empty."""
    dtypes: tuple[str, ...] = FLOAT
    """Element types of the result that the runtime has the kernel for."""
    computes: str | None = None
    """The float type that it computes in, between casts, where that is not the operands' own."""
    limits: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What the runtime's version of the kernel takes; the kernel says under which names."""
    forms: frozenset[str] = frozenset()
    """How it is used.

    compact            attention: each row's keys lie one after the other, and the rope is inside
    ragged             attention: rows may have several new tokens over a past (`query_seqlens`)
    packed             attention: q, k and v side by side; products: one for all projections of a value
    packed attention   products: one for the projections of an attention
    """

    def applies(self, phase: Phase, assume: str, dtype: str) -> bool:
        """Whether the row is for a phase, an assumption and an element type."""
        return (
            (not self.phases or phase in self.phases)
            and (not self.assume or assume in self.assume)
            and dtype in self.dtypes
        )

    def why_not(self, node: Node, made_by: MadeBy) -> str:
        """Why the kernel cannot compute a node; empty when it can. `made_by` finds what stands before it."""
        return self.kernel.why_not(node, self.limits, made_by)


@dataclass(frozen=True, slots=True)
class Target:
    """A runtime to emit for."""

    name: str
    opset: int
    ir_version: int
    min_onnxruntime: str
    contrib: bool
    """Whether com.microsoft operators may be used."""
    doc: str
    kernels: tuple[Row, ...]
    """The table, the best first: the first row that applies and whose kernel can compute an operator has it."""
    dtypes: tuple[str, ...] = FLOAT
    """Float types in which the runtime computes."""
    provider: Literal["cpu", "cuda"] = "cpu"
    """The provider of onnxruntime that its graphs are meant for."""
    on_cpu: tuple[str, ...] = FLOAT
    """Float types whose graphs onnxruntime's CPU provider can run, which is there on every machine."""
    stores: tuple[str, ...] = ()
    """Float types in which weights are stored, where it computes in float32 none the less."""

    def check_dtype(self, dtype: str) -> None:
        """Raise SpecError `unsupported-precision` for a float type that builds for the target cannot have."""
        offered = [*self.dtypes, *(d for d in self.stores if d not in self.dtypes)]
        if dtype not in offered:
            message = f"the target '{self.name}' has no builds in {dtype}"
            raise SpecError.of("unsupported-precision", message, hint=f"--dtype {' or '.join(offered)}")

    def rows(self, op: type[Op], phase: Phase, assume: str, dtype: str = "float32") -> Iterator[Row]:
        """The rows for an operator, the best first."""
        return (row for row in self.kernels if row.op is op and row.applies(phase, assume, dtype))

    def fused_attention(self, phase: Phase, assume: str, dtype: str = "float32") -> Row | None:
        """The row of GroupQueryAttention for a phase, if it pays there."""
        rows = self.rows(Attention, phase, assume, dtype)
        return next((row for row in rows if row.kernel is GroupQueryAttention), None)

    def attention(self, phase: Phase, assume: str, dtype: str = "float32") -> AttentionForm:
        """How the attention of a phase runs under an assumption, where its operators allow it."""
        row = self.fused_attention(phase, assume, dtype)
        return "attention" if row is None else "fused" if "compact" in row.forms else "shared"
