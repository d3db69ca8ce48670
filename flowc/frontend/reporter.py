"""Where the expansion of a flow is, and what goes wrong there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from flowc.errors import Diagnostics, Span, WeightsError
from flowc.ir.graph import Origin

_CONSEQUENCES = frozenset(
    {
        "bad-shape", "conflicting-shapes", "misshapen-weight", "residual-twice", "undefined-rope", "undefined-slot",
        "unknown-size",
    }
)  # fmt: skip
"""What a stage may seem to do wrong because one before it failed."""


class Failed(Exception):
    """A stage could not go on; what is wrong has been collected."""


@dataclass(frozen=True, slots=True)
class Site:
    """The stage that is being expanded: its path in the flow, its kind, its place and those of its fields."""

    path: tuple[str, ...] = ()
    kind: str = ""
    span: Span | None = None
    fields: Mapping[str, Span] = field(default_factory=dict[str, Span])

    @property
    def origin(self) -> Origin:
        """Provenance of what is emitted here."""
        return Origin(".".join(self.path), self.kind, self.span)

    @property
    def what(self) -> str:
        """How a message begins that is about this place."""
        return f"stage '{self.kind}'" if self.kind else "the flow"

    def place(self, field_name: str) -> Span | None:
        """Where a field of the stage stands in the spec; the stage itself when it does not."""
        return self.fields.get(field_name) or self.span


@dataclass(slots=True)
class Reporter:
    """Collects errors at the stage that is being expanded."""

    problems: Diagnostics
    site: Site = Site()
    ids: str = ""
    """The type of the active value while it is still token ids, which no `embed` has made vectors of."""
    failed: bool = False
    """Whether a stage has failed: what others then do wrong may be a consequence, which is not told."""

    def fail(
        self,
        code: str,
        message: str,
        span: Span | None = None,
        hint: str = "",
        *,
        notes: tuple[tuple[str, Span | None], ...] = (),
    ) -> Failed:
        """Collect an error, at the current stage unless `span` is elsewhere; raise what it returns."""
        if self.ids and code == "bad-shape" and not self.failed:
            message = f"{self.site.what} takes vectors, and the flow holds token ids here: {self.ids}"
            span, hint, notes = self.site.span, "`embed` makes vectors of them: put it before this stage", ()
        if not (self.failed and code in _CONSEQUENCES):
            self.problems.error(code, message, span or self.site.span, hint, notes=notes)
        return Failed()

    def weights_error(self, code: str, message: str, span: Span | None, hint: str = "") -> None:
        """Collect that the weights do not fit, and go on as if they did."""
        if not (self.failed and code in _CONSEQUENCES):
            self.problems.error(code, message, span, hint, kind=WeightsError)
