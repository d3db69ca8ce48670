"""onnxruntime's CPU provider, with the contrib operators that were measured to pay there."""

from __future__ import annotations

from flowc.targets.target import Target

TARGET = Target(
    "ort-cpu", 24, 10, "1.32.0", True,
    "onnxruntime's CPU provider, with its contrib operators where they are measured to pay", ("silu",),
    attention={
        ("decode", "none"): "shared",
        ("decode", "right-padding"): "fused",
        ("unified", "right-padding"): "fused",
    },
    packs=frozenset({"decode"}),
)  # fmt: skip
