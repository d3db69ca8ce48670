"""What a pass is, what it may know beside the graph, and what it says about what it did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from flowc.ir.graph import Graph, Node
from flowc.targets.target import Target


@dataclass(slots=True)
class Audit:
    """What a pass did to a graph: places where it fired, and places where it could not, with the reason."""

    fired: list[str] = field(default_factory=list[str])
    missed: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    @property
    def candidates(self) -> int:
        """All places that the pass looked at in earnest."""
        return len(self.fired) + len(self.missed)


@dataclass(frozen=True, slots=True)
class Precision:
    """The float type of a build, and the stages that stay float32 in it, as patterns of their paths."""

    dtype: str = "float32"
    islands: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Context:
    """Facts of the target and of the build."""

    target: Target
    assume: str
    context_length: int | None
    in_place: bool = False
    """Whether the checkpoint's bytes are to be used where they lie."""
    cache: str | None = None
    """The form of the cache that was asked for: aligned, static, compact, or None for what goes with `assume`."""
    precision: Precision = Precision()

    @property
    def computes_in(self) -> str:
        """The float type that the graph computes in, at its end; what is only stored in half precision is float32."""
        dtype = self.precision.dtype
        return "float32" if dtype in self.target.stores else dtype

    @property
    def why_unchanged(self) -> str:
        """Why nothing may be multiplied into a weight of two axes and more; empty where it may."""
        if self.in_place:
            return "its weight is used where it lies"
        if self.precision.dtype in self.target.stores:
            return f"its weight is stored in {self.precision.dtype}, and a product would be rounded anew"
        return ""


Pass = Callable[[Graph, Context, Audit], Graph]


def place(node: Node) -> str:
    """How audits name an operator: by its first result, which is its stage's path and its name there."""
    return node.outputs[0].name
