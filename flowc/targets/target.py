"""What is said of a target: versions, and which operators pay there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

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
