"""`flowc verify`: everything that can be checked without a second opinion.

files       every file of the manifest has its recorded hash, the data file whole
weights     the data file holds, bit by bit, what the weights give; every graph reads them where they lie
lowered     the graph files are what this flowc lowers their spec to
load        each graph loads in onnxruntime with the inputs and outputs that the IR declares
facts       graphs and manifest say of the model what its spec says
operators   each operator of each graph does what it means, fed with the numbers of onnxruntime
numbers     each graph gives what the interpreter gives, on inputs that bite (see `scenarios`)
pair        prefill and decode give what unified gives
step        decode(N) is the last row of prefill(N + 1)
alone       a padded row gives what it gives alone
together    so it does through `flowc run`'s own decoder, with steps over the cache
finite      no NaN and no infinity, also where nothing is specified
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from flowc.build import manifest as manifests
from flowc.build.compiled import Compiled
from flowc.build.data import Layout
from flowc.build.in_place import locator
from flowc.build.manifest import Manifest
from flowc.errors import WeightsError
from flowc.ir.phases import going_on, starting, without_cache, without_past
from flowc.ir.types import SEQUENCE
from flowc.verify.batch_invariance import check_together
from flowc.verify.checks import Checks, Progress
from flowc.verify.data_file import check_places, check_weights
from flowc.verify.files import check_facts, check_files, check_ports
from flowc.verify.inputs import Array, Arrays, Call
from flowc.verify.locate import sweep
from flowc.verify.lowered import check_lowered
from flowc.verify.quick import numbers, one_layer_of_each_kind, parameters
from flowc.verify.rebuild import layout_of, subject_of
from flowc.verify.scenarios import (
    Facts,
    Scenario,
    by_columns,
    decoder_scenarios,
    encoder_scenarios,
    memory_of,
    shortened,
)

LARGE = 32_000_000
"""Numbers in the weights from which on what one graph was compared in is not compared again in its twin."""

COMPACT = 7
"""Columns of a compact cache that is made up."""

MOST_COLUMNS = 64
"""Columns of a prompt that a decode graph alone is fed one by one."""

MEMORY = 2_000_000_000
"""Bytes that a call may take in the interpreter before its prompt is replaced by a made-up past, or left out."""


def check(manifest: Path, compiled: Compiled, progress: Progress | None = None) -> list[dict[str, Any]]:
    """The checks as `flowc build --verify full` runs them. Raises CheckFailed with everything that is wrong."""
    checks = verify(manifests.load(manifest), compiled, progress=progress)
    checks.stop_if_any()
    return checks.as_json()


@np.errstate(all="ignore")  # a broken model's numbers are judged, not warned about
def verify(manifest: Manifest, compiled: Compiled, memory: int = MEMORY, progress: Progress | None = None) -> Checks:
    """Check a build against its compiled form; what is wrong stands in the result."""
    checks = Checks(subject_of(manifest, compiled), progress=progress)
    check_files(manifest.path, checks, whole=True)
    if not all((manifest.folder / record.file).is_file() for record in manifest.graphs.values()):
        return checks
    layout = _layout(manifest, compiled)
    if layout is not None:
        check_places(checks, layout)
        if manifest.data and not _truncated(manifest):
            check_weights(checks, layout, manifest.folder)
    check_lowered(manifest, checks, layout)
    check_ports(checks.subject, checks)
    if any(not c.passed and c.name in ("load", "ports") for c in checks.done):
        return checks
    check_facts(manifest, checks)
    if _truncated(manifest):
        return checks
    if not checks.subject.runs_here:
        return numbers(checks)
    for _ in checks.parts():
        _Full(checks, memory).run()
    if (
        manifest.generates and not checks.failures and not checks.padding_shows
    ):  # its runtime refuses files that are not the build's
        checks.subject.release()
        check_together(manifest, checks, brief=parameters(compiled) > LARGE)
    return checks


def _layout(manifest: Manifest, compiled: Compiled) -> Layout | None:
    """Where each weight should lie; None for a build with --in-place that is held to weights from elsewhere."""
    if not manifest.in_place:
        return layout_of(compiled, manifest)
    try:
        return layout_of(
            compiled,
            manifest,
            locator(compiled.checkpoint, manifest.folder, manifest.dtype) if compiled.checkpoint else None,
        )
    except WeightsError:
        return None


def _truncated(manifest: Manifest) -> bool:
    return any(
        not (manifest.folder / data.file).is_file()
        or (data.bytes is not None and (manifest.folder / data.file).stat().st_size < data.bytes)
        for data in manifest.data
    )


class _Full:
    """Runs the scenarios through the graphs."""

    def __init__(self, checks: Checks, memory: int) -> None:
        self.checks = checks
        self.subject = checks.subject
        self.feeder = checks.subject.feeder
        self.compiled = checks.subject.compiled
        self.phases = self.subject.graphs
        self.facts = Facts.of(self.compiled)
        self.memory = memory
        self.large = parameters(self.compiled) > LARGE
        self.lowered = {c.graph for c in checks.done if c.name == "lowered" and c.passed}
        """Graph files that are what their graphs are lowered to: layers of one kind are the same nodes in them."""
        self.swept: set[str] = set()
        self.stepped = False
        """Whether a step was compared with a longer prompt."""

    def run(self) -> None:
        whole = without_cache(self.phases)
        if whole is not None:
            tokens, padded = self.feeder.takes_tokens, self.feeder.takes_mask
            for scenario in self._told(encoder_scenarios(self.compiled, self.facts, tokens=tokens, padded=padded)):
                if self._affordable(whole, scenario):
                    self.encode(whole, scenario)
        else:
            for scenario in self._told(decoder_scenarios(self.compiled, self.facts, self.memory, large=self.large)):
                self.decode(scenario)
            if self.compiled.request.options.assume == "right-padding" and self.feeder.takes_mask:
                self.compact()

    def _told(self, scenarios: Iterable[Scenario]) -> Iterator[Scenario]:
        """The scenarios, each told when it begins."""
        every = list(scenarios)
        for done, scenario in enumerate(every):
            self.checks.told("checking numbers", done, len(every))
            yield scenario

    def _affordable(self, phase: Any, scenario: Scenario) -> bool:
        needed = memory_of(self.phases[phase], len(scenario.mask), scenario.mask.shape[1], scenario.past)
        if needed <= self.memory:
            return True
        self.checks.passed("skipped", phase, f"{scenario.name}: needs about {needed / 1e9:.1f} GB")
        return False

    def one(self, call: Call, twin: Call | None = None) -> dict[str, Array]:
        """A call with all checks that need nothing else: numbers, and once per graph each operator.

        `twin`: the call by which another graph was just compared on these inputs; the two will be compared.
        """
        found = self.subject.run(call)
        self.checks.finite(call, found)
        if twin is not None and self.large:
            self.subject.share_allowance(call, twin)
        else:
            self.checks.against(call, found, self.subject.reference(call), "numbers")
        begins = self.phases[call.phase].phase.tokens == "one" and call.new.shape == call.total.shape
        if call.phase not in self.swept and not begins:
            self.swept.add(call.phase)
            if self.large and call.phase in self.lowered:
                one_layer_of_each_kind(self.subject, call, self.checks, tables=True)
            else:
                self.checks.operators(call, list(sweep(self.subject, call)))
        return found

    # Encoders

    def encode(self, graph: str, scenario: Scenario) -> None:
        rows, columns = scenario.mask.shape
        drawn = self.feeder.at_the_ends(self.feeder.draw(rows, columns, scenario.seed))
        call = self.feeder.call(scenario.name, graph, drawn, scenario.mask)
        found = self.one(call)
        for row in range(1, rows):
            # An encoder counts positions by columns (HF), so padding in front of a row moves it.
            if scenario.mask[row, 0]:
                self.checks.alone(call, found, row)

    # Decoders

    def decode(self, scenario: Scenario) -> None:
        """A prompt through prefill and unified, then each step through decode (or unified) over one cache."""
        rows = len(scenario.mask)
        first = starting(self.phases, 1)[0]
        if self.phases[first].phase.tokens == "one" and not scenario.past:
            scenario = self._by_columns(scenario)
        if not scenario.past and not self._affordable(first, scenario):
            if scenario.whole:
                return
            scenario = shortened(scenario, scenario.mask.shape[1] + 4)
        later = going_on(self.phases, 1)[-1:]
        if scenario.past and not later:
            return
        if scenario.past and not self._affordable(later[0], scenario):
            return
        drawn = self.feeder.at_the_ends(self.feeder.draw(rows, scenario.columns, scenario.seed))
        mask = np.concatenate([np.ones((rows, scenario.past), np.int64), scenario.mask], axis=1)
        if scenario.layers:
            self._layers(scenario, drawn, mask)
            return
        past: Mapping[str, Array] = {}
        if scenario.past:
            past = self.feeder.made_up_past(later[0], rows, scenario.past, scenario.seed)
            past = self._continue(scenario, drawn, mask, scenario.past, past)
        else:
            past = self._begin(scenario, drawn, mask)
        for step in scenario.steps:
            if not past:
                return
            start = mask.shape[1]
            mask = np.concatenate([mask, step], axis=1)
            past = self._continue(scenario, drawn, mask, start, past)

    def _layers(self, scenario: Scenario, drawn: Mapping[str, Array], mask: Array) -> None:
        """One call of each graph that takes the prompt (of one, over a cache), by one layer of each kind."""
        chosen = starting(self.phases, mask.shape[1])
        past: Mapping[str, Array] | None = None
        if scenario.past:
            chosen = going_on(self.phases, mask.shape[1] - scenario.past)[:1]
            past = self.feeder.made_up_past(chosen[0], len(mask), scenario.past, scenario.seed)
        for phase in chosen:
            call = self.feeder.call(scenario.name, phase, drawn, mask, scenario.past, past)
            self.checks.finite(call, one_layer_of_each_kind(self.subject, call, self.checks, tables=True))

    def compact(self) -> None:
        """A step over rows of unlike lengths: the spec does not know such a cache, but each operator's meaning does."""
        past = min(COMPACT, (self.facts.context or COMPACT + 1) - 1)
        lengths = np.maximum(past - np.arange(3) * 2, 0)
        mask: Array = np.less(np.arange(past + 1), lengths[:, None] + 1).astype(np.int64)
        for phase in going_on(self.phases, 1):
            made_up = self.feeder.made_up_past(phase, 3, past, seed=10)
            call = self.feeder.call("compact cache", phase, self.feeder.draw(3, past + 1, 10), mask, past, made_up)
            call = replace(call, new=np.ones((3, 1), bool))
            self.checks.operators(call, list(sweep(self.subject, call)))

    def _by_columns(self, scenario: Scenario) -> Scenario:
        """For a build that has nothing but a decode graph: the prompt column by column, or over a made-up past."""
        padded = not all(m.all() for m in (scenario.mask, *scenario.steps))
        if scenario.columns > MOST_COLUMNS or (padded and self.compiled.request.options.assume == "right-padding"):
            return shortened(scenario, scenario.mask.shape[1] + 4)
        return by_columns(scenario)

    def _begin(self, scenario: Scenario, drawn: Mapping[str, Array], mask: Array) -> dict[str, Array]:
        """The prompt: prefill, unified, decode if it is one token, and each row alone. Returns the cache."""
        begun: tuple[Call, dict[str, Array]] | None = None
        longest = int(mask.sum(axis=1).max())
        for phase in starting(self.phases, mask.shape[1]):
            call = self.feeder.call(scenario.name, phase, drawn, mask)
            found = self.one(call, begun[0] if begun is not None else None)
            for row in range(len(mask)) if begun is None or not self.large else ():
                tokens = int(mask[row].sum())
                if 0 < tokens < mask.shape[1] and not self.facts.switch_between(tokens, longest):
                    self.checks.alone(call, found, row)
            if begun is not None:
                self.checks.against(call, found, begun[1], "pair", f"{scenario.name}: {begun[0].phase} = {phase}")
            begun = begun or (call, found)
        return self.feeder.past_of(begun[1]) if begun is not None else {}

    def _continue(
        self, scenario: Scenario, drawn: Mapping[str, Array], mask: Array, start: int, past: Mapping[str, Array]
    ) -> dict[str, Array]:
        """New tokens over a cache. Returns the longer cache."""
        new = mask.shape[1] - start
        label = f"{scenario.name}, {new} over {start}"
        gone: tuple[Call, dict[str, Array]] | None = None
        for phase in going_on(self.phases, new):
            call = self.feeder.call(label, phase, drawn, mask, start, past)
            found = self.one(call, gone[0] if gone is not None else None)
            if gone is not None:
                self.checks.against(call, found, gone[1], "pair", f"{label}: decode = unified")
            gone = gone or (call, found)
        if gone is None:
            return {}
        if new == 1 and not scenario.past:
            self._step(scenario, drawn, mask, *gone)
        return self.feeder.past_of(gone[1])

    def _step(self, scenario: Scenario, drawn: Mapping[str, Array], mask: Array, call: Call, found: Arrays) -> None:
        """decode(N) = the last row of prefill(N + 1); not where a rope changes its tables in between."""
        begun, longest = (int(m.sum(axis=1).max()) for m in (scenario.mask, mask))
        prefill = without_past(self.phases)
        if prefill is None or self.facts.switch_between(begun, longest):
            return
        if self.large and self.stepped:
            return
        self.stepped = True
        if self.compiled.request.options.assume == "right-padding" and not mask.all():
            return
        whole = self.feeder.call(call.label, prefill, drawn, mask)
        results = self.subject.run(whole)
        allowance = self.subject.allowance(whole, results)
        types = {o.name: o.value.type for o in self.subject.meanings[prefill].outputs}

        def last(arrays: Arrays) -> dict[str, Array]:
            return {n: a[:, -1:] if types[n].shape[1:2] == (SEQUENCE,) else a for n, a in arrays.items()}

        if allowance.tied is not None and allowance.tied.any():
            return
        what = f"{call.label}: decode(N) = last of prefill(N + 1)"
        self.checks.against(call, found, last(results), "step", what, last(allowance.errors))
