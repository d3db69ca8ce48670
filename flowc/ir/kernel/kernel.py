"""What makes an operator a kernel: it says which operators of the core level it computes, and takes their place.

    class FusedMatMul(Linear, Kernel, name="fused_mat_mul", level="kernel"): ...

A kernel that computes all of one core operator is a kind of it, with its meaning and traits. One that computes less
says so in `why_not`; one that computes more, or other operands, has a meaning of its own and takes its place by `take`.
Only one with attributes of its own is declared a dataclass.
Which kernel is used where is the table of a target (`flowc/targets/`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar, cast

from flowc.ir.graph import MadeBy, Node, Rewriter, Value
from flowc.ir.op import Op

Limits = Mapping[str, Any]
"""What a target's version of a kernel takes, by names that the kernel gives."""


class Kernel:
    """Base of operators that a target's table may name."""

    by_pass: ClassVar[str] = ""
    """The pass that puts it in, for what takes the place of several operators; `select_kernels` when empty."""

    @classmethod
    def why_not(cls, node: Node, limits: Limits, made_by: MadeBy) -> str:
        """Why the kernel cannot compute a node; empty when it can. `made_by` finds what stands before it."""
        return ""

    @classmethod
    def take(cls, node: Node, rewriter: Rewriter) -> tuple[Value, ...]:
        """Add the kernel in place of a node that it can compute; by default with its attributes and operands."""
        op = cast("type[Op]", cls)(**{f.name: getattr(node.op, f.name) for f in fields(node.op)})
        return rewriter.remake(node, op, node.inputs)
