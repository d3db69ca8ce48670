"""What each target runs, as data: versions, and which operators pay there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from flowc.errors import SpecError, nearest

AttentionKernel = Literal["attention", "shared", "fused"]
"""How a decoder's attention runs.

attention   ONNX Attention; the cache is joined to the new keys
shared      GroupQueryAttention with a mask to add; it may write new keys where the past lies
fused       the same with the rope inside; keys of each row follow its own last one (compact cache)
"""


@dataclass(frozen=True, slots=True)
class GroupQueryLimits:
    """What the target's GroupQueryAttention takes."""

    head_multiple: int = 8
    rotary_head_multiple: int = 16
    rotary_dim_multiple: int = 16


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
    expert_activations: tuple[str, ...] = ()
    """Activations of a mixture of experts that the target has one operator for."""
    attention: Mapping[tuple[str, str], AttentionKernel] = field(default_factory=dict[tuple[str, str], AttentionKernel])
    """The kernel of a phase's attention under an assumption; ONNX Attention where nothing is said."""
    group_query: GroupQueryLimits = GroupQueryLimits()
    packs: frozenset[str] = frozenset()
    """Phases in which one wide projection is faster than several narrow ones of the same value."""

    def kernel(self, phase: str, assume: str) -> AttentionKernel:
        """The kernel that pays for a phase under an assumption."""
        return self.attention.get((phase, assume), "attention")


TARGETS = {
    t.name: t
    for t in (
        Target(
            "ort-cpu", 24, 10, "1.32.0", True,
            "onnxruntime's CPU provider, with its contrib operators where they are measured to pay", ("silu",),
            attention={
                ("decode", "none"): "shared",
                ("decode", "right-padding"): "fused",
                ("unified", "right-padding"): "fused",
            },
            packs=frozenset({"decode"}),
        ),
        Target("portable", 24, 10, "1.32.0", False, "standard ONNX operators only"),
    )
}  # fmt: skip


def target(name: str) -> Target:
    """The target of that name; SpecError when there is none."""
    if name not in TARGETS:
        raise SpecError.of(
            "unknown-target",
            f"there is no target '{name}'",
            hint=nearest(name, TARGETS) or f"targets: {', '.join(TARGETS)}",
        )
    return TARGETS[name]
