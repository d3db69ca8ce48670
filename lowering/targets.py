"""What each target runs, as data: versions, and which operators pay there."""

from __future__ import annotations

from dataclasses import dataclass

from flowc.errors import SpecError, nearest


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


TARGETS = {
    t.name: t
    for t in (
        Target(
            "ort-cpu", 24, 10, "1.32.0", True,
            "onnxruntime's CPU provider, with its contrib operators where they are measured to pay", ("silu",),
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
