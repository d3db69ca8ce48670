from __future__ import annotations

from flowc.frontend.builder import Builder
from flowc.frontend.stage import Stage
from flowc.frontend.state import Residual
from flowc.ir.graph import Value
from flowc.stages.blocks.decoder import add


class ResidualSave(Stage, name="residual_save"):
    """Keeps the active value for the next `residual_add`."""

    writes = ("residual",)
    example = "sequence: [residual_save, residual_add]"

    def expand(self, b: Builder, x: Value) -> Value:
        if b.state.residual is not None:
            raise b.fail("residual-twice", "a residual is saved while the last one was not added yet")
        b.state.residual = Residual(x, b.reporter.site.span)
        return x


class ResidualAdd(Stage, name="residual_add"):
    """Adds what the last `residual_save` kept."""

    reads = ("active", "residual")
    writes = ("active", "residual")
    example = "residual_add"

    def expand(self, b: Builder, x: Value) -> Value:
        saved = b.state.residual
        if saved is None:
            raise b.fail("undefined-slot", "there is no residual to add", hint="`residual_save` must come first")
        if saved.value.shape != x.shape:
            raise b.fail("bad-shape", f"the saved residual is {saved.value.type}, the active value {x.type}")
        b.state.residual = None
        return add(b, saved.value, x)
