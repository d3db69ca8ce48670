"""What was checked, what it gave, and what to tell when something is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import numpy as np

from flowc.errors import CheckFailed, Diagnostic, Span
from flowc.ir.graph import Node
from flowc.ir.types import BATCH, SEQUENCE, TOTAL, TensorType
from flowc.verify.built_model import BuiltModel
from flowc.verify.compare import Deviation, compare
from flowc.verify.inputs import Call
from flowc.verify.locate import Location, locate, place

Array = np.ndarray[Any, np.dtype[Any]]


CAUSES = ("facts", "ports", "places", "weights", "lowered", "files", "load")
"""Checks whose failures others follow from; what is said of a tensor or a node comes before the hash of its file."""

ABSENT = ("missing-file", "missing-graph")
"""Codes of failures that come before all others: without a file, or with one too many, nothing else lies right."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that was checked."""

    name: str
    graph: str
    passed: bool
    detail: str = ""
    worst: Deviation | None = None
    location: Location | None = None
    stage: str = ""
    """The stage at fault, where it is known without a location."""
    code: str = ""
    span: Span | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain values; without numbers that another machine would give otherwise, unless something is wrong."""
        out: dict[str, Any] = {"name": self.name, "graph": self.graph, "passed": self.passed}
        if self.detail:
            out["detail"] = self.detail
        if self.worst is not None:
            error = self.worst.error if isfinite(self.worst.error) else "inf"
            out |= {"value": self.worst.name, "error": error, "allowed": self.worst.allowed}
        if self.stage:
            out["stage"] = self.stage
        if self.location is not None:
            out["first_wrong"] = self.location.as_json()
        return out


Progress = Callable[[str, int, int], None]
"""What is being checked, how much of it was, and how much there is."""


@dataclass(slots=True)
class Checks:
    """Everything that was checked so far."""

    subject: BuiltModel
    done: list[Check] = field(default_factory=list[Check])
    progress: Progress | None = None
    first_wrong: Call | None = None
    """The first call that gave wrong numbers."""
    padding_shows: bool = False
    """Whether the spec means that a row's result depends on its padding."""
    _blamed: set[str] = field(default_factory=set[str])

    def told(self, what: str, done: int, total: int) -> None:
        """Tell whoever waits how far the checks are."""
        if self.progress is not None:
            self.progress(what, done, total)

    def passed(self, name: str, graph: str = "", detail: str = "", worst: Deviation | None = None) -> None:
        """Note a check that held."""
        self.done.append(Check(name, graph, True, detail, worst))

    def fail(
        self, code: str, name: str, graph: str, message: str, worst: Deviation | None = None,
        location: Location | None = None, span: Span | None = None,
        stage: str = "",
    ) -> None:  # fmt: skip
        """Note a check that did not hold."""
        self.done.append(Check(name, graph, False, message, worst, location, stage, code, span))

    @property
    def failures(self) -> list[Check]:
        """The checks that did not hold."""
        return [c for c in self.done if not c.passed]

    @property
    def root(self) -> Check | None:
        """The failure that the others most likely follow from: of the files before the numbers, then the first."""

        def rank(check: Check) -> tuple[int, bool]:
            order = CAUSES.index(check.name) if check.name in CAUSES else len(CAUSES)
            return -1 if check.code in ABSENT else order, order == len(CAUSES) and check.location is None

        return min(self.failures, key=rank, default=None)

    def error(self) -> CheckFailed | None:
        """What is wrong: the root cause, and how many other checks failed beside it."""
        root = self.root
        if root is None:
            return None
        others: dict[str, list[str]] = {}
        for check in self.failures:
            if check is not root:
                others.setdefault(check.name, []).append(check.graph)
        count = sum(map(len, others.values()))
        kinds = [
            f"{name} ({', '.join(dict.fromkeys(filter(None, on)))})" if any(on) else name for name, on in others.items()
        ]
        more = "1 other check" if count == 1 else f"{count} other checks"
        hint = f"{more} failed, which may follow from it: {', '.join(kinds)}" if count else ""
        return CheckFailed([Diagnostic(root.code, root.detail, root.span, hint)])

    def render(self) -> str:
        """What is wrong, as text; empty when nothing is."""
        error = self.error()
        return error.render() if error is not None else ""

    def parts(self) -> Iterator[BuiltModel]:
        """The subject component by component; checks are about the one that was given last."""
        whole = self.subject
        try:
            for part in whole.parts:
                self.subject = part
                yield part
        finally:
            self.subject = whole

    def stop_if_any(self) -> None:
        """Raise CheckFailed when a check so far did not hold."""
        error = self.error()
        if error is not None:
            raise error

    def finite(self, call: Call, found: Mapping[str, Array]) -> None:
        """No NaN and no infinity, not even where a number is unspecified."""
        types = {o.name: o.value.type for o in self.subject.meanings[call.phase].outputs}
        # A compact cache (--assume right-padding) leaves what lies behind a row's end as it is.
        whole = self.subject.compiled.request.options.assume != "right-padding"
        bad = [
            name
            for name, array in found.items()
            if array.dtype.kind == "f" and not (np.isfinite(array) | ~(whole | call.valid(types[name]))).all()
        ]
        if not bad:
            self.passed("finite", call.phase, call.label)
            return
        self._wrong(
            call, "finite", f"the {call.phase} graph gives NaN or infinity in {', '.join(bad[:4])} ({call.label})"
        )

    def against(
        self, call: Call, found: Mapping[str, Array], expected: Mapping[str, Array], name: str, what: str = "",
        more: Mapping[str, Array] | None = None,
    ) -> None:  # fmt: skip
        """A graph's outputs are what they should be; `more` is what the expected ones may be off themselves."""
        what = what or call.label
        worst = self.subject.outputs_differ(call, found, expected, found, more)[0]
        what += self._ties(call, found)
        if worst.good:
            self.passed(name, call.phase, what, worst)
            return
        self._wrong(call, name, f"the {call.phase} graph gives wrong numbers ({what}): {worst}", worst)

    def _ties(self, call: Call, found: Mapping[str, Array]) -> str:
        """What to add to a check's words when some tokens could not be compared."""
        tied = self.subject.allowance(call, found).tied
        count = 0 if tied is None else int((tied & call.new).sum())
        return f", without {count} tokens behind a tie of a router" if count else ""

    def operators(self, call: Call, compared: Sequence[tuple[Node, Deviation]]) -> None:
        """Operators do what they mean."""
        before = 0.0
        for node, deviation in compared:
            if not deviation.good:
                message = f"the {call.phase} graph gives wrong numbers ({call.label})"
                found = place(self.subject, call, node, deviation, before, "its lowering is not what it means")
                self.fail("wrong-numbers", "operators", call.phase, f"{message}: {found}", deviation, found, found.span)
                return
            before = max(before, deviation.error)
        worst = max((d for _, d in compared), key=lambda d: d.ratio, default=None)
        self.passed("operators", call.phase, f"{call.label}, {len(compared)} results", worst)

    def _wrong(self, call: Call, name: str, message: str, worst: Deviation | None = None) -> None:
        """Note wrong numbers; the first failure of a graph is traced to its stage."""
        self.first_wrong = self.first_wrong or call
        location = None
        if call.phase not in self._blamed:
            self._blamed.add(call.phase)
            location = locate(self.subject, call) if self.subject.runs_here else None
        if location is not None:
            message = f"{message}; {location}"
        self.fail("wrong-numbers", name, call.phase, message, worst, location, location.span if location else None)

    def alone(self, call: Call, found: Mapping[str, Array], row: int) -> None:
        """A row of a batch gives what it gives alone, without its padding; unless the spec means something else."""
        subject = self.subject
        allowance = subject.allowance(call, found)
        sure = call.without(allowance.tied)
        columns: Array = np.flatnonzero(call.new[row])
        single = self._single(call, row, columns)
        types = {o.name: o.value.type for o in subject.meanings[call.phase].outputs}

        def apart(batch: Mapping[str, Array], lone: Mapping[str, Array]) -> list[Deviation]:
            def cut(array: Array, name: str) -> Array:
                return _row(np.broadcast_to(array, batch[name].shape), types[name], row, columns)

            return [
                compare(
                    n, cut(batch[n], n), lone[n], cut(subject.specified(sure, n, type_), n), cut(allowance.errors[n], n)
                )
                for n, type_ in types.items()
                if type_.shape[:1] == (BATCH,)
            ]

        compared = apart(found, subject.run(single))
        if not compared:
            return
        worst = max(compared, key=lambda d: d.ratio)
        what = (
            f"row {row} of a ragged batch = the row alone"
            if subject.feeder.takes_mask
            else f"row {row} of a batch = alone"
        )
        if worst.good:
            self.passed("alone", call.phase, what, worst)
            return
        expected = subject.reference(call)
        meant = not all(d.good for d in apart(expected, subject.reference(single)))
        if meant and all(d.good for d in subject.outputs_differ(call, found, expected, found)):
            self.padding_shows = True
            self.passed("alone", call.phase, f"{what} does not hold: the spec itself lets padding show")
            return
        self._wrong(call, "alone", f"the {call.phase} graph: {what} does not hold: {worst}", worst)

    def _single(self, call: Call, row: int, columns: Array) -> Call:
        """A row of a call as a batch of its own, without its padding."""
        feeder = self.subject.feeder
        drawn = {n: a for n, a in call.feeds.items() if feeder.is_drawn(n)}
        mask = np.ones((1, len(columns)), np.int64)
        return feeder.call(f"row {row} alone", call.phase, feeder.rows(drawn, row, columns), mask)

    def as_json(self) -> list[dict[str, Any]]:
        """All checks as plain values."""
        return [c.as_json() for c in self.done]


def _row(array: Array, kind: TensorType, row: int, columns: Array) -> Array:
    """A row of a batch, cut to some columns on every axis that has them."""
    array = array[row : row + 1]
    for axis, dim in enumerate(kind.shape):
        if dim in (SEQUENCE, TOTAL):
            array = np.take(array, columns, axis=axis)
    return array
