from __future__ import annotations

from flowc.frontend.builder import Expansion
from flowc.frontend.stage import Stage
from flowc.ir.graph import Value
from flowc.stages.blocks.decoder import add


class ResidualSave(Stage, name="residual_save"):
    """Keeps the active value for the next `residual_add`."""

    writes = ("residual",)
    example = "sequence: [residual_save, residual_add]"

    def expand(self, f: Expansion, x: Value) -> Value:
        if f.slots.residual is not None:
            raise f.fail("residual-twice", "a residual is saved while the last one was not added yet")
        f.slots.residual, f.slots.residual_place = x, f.origin.span
        return x


class ResidualAdd(Stage, name="residual_add"):
    """Adds what the last `residual_save` kept."""

    reads = ("active", "residual")
    writes = ("active", "residual")
    example = "residual_add"

    def expand(self, f: Expansion, x: Value) -> Value:
        saved = f.slots.residual
        if saved is None:
            raise f.fail("undefined-slot", "there is no residual to add", hint="`residual_save` must come first")
        if saved.shape != x.shape:
            raise f.fail("bad-shape", f"the saved residual is {saved.type}, the active value {x.type}")
        f.slots.residual = None
        return add(f, saved, x)
