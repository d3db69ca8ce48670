"""Imports, builds and runs an oracle case, and measures how far each of its numbers is from HuggingFace's."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnxruntime as ort

from flowc.build.compiled import Compiled, Request
from flowc.compile import build, compile_file
from flowc.frontend.state import Options
from flowc.importers import import_checkpoint
from flowc.ir.interpret import interpret
from tests.oracle_io import RTOL, Array, Oracle


@dataclass(frozen=True, slots=True)
class Check:
    """One comparison: the worst error as a fraction of what is allowed there, and the worst absolute error."""

    case: str
    target: str
    what: str
    error: float
    allowed: float
    ratio: float

    @property
    def good(self) -> bool:
        """Whether every number is within tolerance."""
        return self.ratio <= 1.0


class Model:
    """Sessions of a built case. Runs feed only what a graph takes, and name the results."""

    def __init__(self, compiled: Compiled, folder: Path) -> None:
        self.compiled = compiled
        self.folder = folder
        stem = {"unified": "model.onnx", "encode": "model.onnx"}
        self.files = {p: folder / stem.get(p, f"model.{p}.onnx") for p in compiled.graphs}

    @functools.cached_property
    def sessions(self) -> dict[str, Any]:
        """A session per graph."""
        options: Any = cast("Any", ort).SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        return {p: ort.InferenceSession(f, options, ["CPUExecutionProvider"]) for p, f in self.files.items()}

    def run(self, phase: str, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Results of a graph by name; a past that is not given is empty."""
        session = self.sessions[phase]
        given: dict[str, Array] = {}
        for wanted in session.get_inputs():
            if wanted.name in feeds:
                given[wanted.name] = feeds[wanted.name]
            elif wanted.name.startswith("past_key_values."):
                batch = next(iter(feeds.values())).shape[0]
                sizes = [d if isinstance(d, int) else (batch if d == "batch_size" else 0) for d in wanted.shape]
                given[wanted.name] = np.zeros(sizes, np.float32)
        names = [o.name for o in session.get_outputs()]
        return dict(zip(names, session.run(names, given), strict=True))


def past_of(results: Mapping[str, Array]) -> dict[str, Array]:
    """The feeds that continue from a run: present becomes past."""
    return {k.replace("present.", "past_key_values."): v for k, v in results.items() if k.startswith("present.")}


def make(
    folder: Path, target: str, work: Path, *, logits: Any = "all", graphs: tuple[str, ...] = (), **options: Any
) -> Model:
    """Import a checkpoint and build it, as a user would."""
    spec = work / "model.yaml"
    spec.write_text(import_checkpoint(folder).text(work), encoding="utf-8")
    request = Request(target=target, graphs=graphs, options=Options(logits=logits, **options))
    compiled = compile_file(spec, request)
    build(compiled, work / f"{target}" / "model.onnx", verify="off")
    return Model(compiled, work / f"{target}")


def check_case(oracle: Oracle, target: str) -> list[Check]:
    """Every comparison that a case allows, on one target."""
    with tempfile.TemporaryDirectory() as work:
        model = make(oracle.folder, target, Path(work))
        runner = _Decoder if "encode" not in model.compiled.graphs else _Encoder
        checks: list[Check] = []
        for what, got, want, cached in runner(oracle, model).comparisons():
            allowed = oracle.allowed(cached=cached)
            error, ratio = _distance(got, want, allowed)
            checks.append(Check(oracle.meta["case"], target, what, error, allowed, ratio))
        return checks


Comparison = tuple[str, Array, Array, bool]
"""What is compared, what came out, what HuggingFace gives, and whether it is cached state."""


def _distance(got: Array, want: Array, allowed: float) -> tuple[float, float]:
    if got.shape != want.shape:
        return float("inf"), float("inf")
    difference = np.abs(got.astype(np.float64) - want.astype(np.float64))
    if not np.isfinite(difference).all():
        return float("inf"), float("inf")
    bound = allowed + RTOL * np.abs(want.astype(np.float64))
    return float(difference.max(initial=0.0)), float((difference / bound).max(initial=0.0))


class _Decoder:
    """Prefill, decode steps, chunk over a past, caches, pair = unified, and rows of padded batches."""

    def __init__(self, oracle: Oracle, model: Model) -> None:
        self.oracle = oracle
        self.model = model

    def comparisons(self) -> Iterator[Comparison]:
        for scenario in self.oracle.scenarios:
            yield from self._scenario(scenario)
        yield from self._rows()

    def _scenario(self, sc: str) -> Iterator[Comparison]:
        o, run = self.oracle, self.model.run
        feeds = {k: v for k, v in o.inputs(sc).items() if k in ("input_ids", "attention_mask")}
        mask, steps, want = feeds["attention_mask"], o.step_count(sc), o.expected(sc)
        kept = mask.astype(bool)
        first = run("prefill", feeds)
        yield f"{sc} prefill logits", first["logits"][kept], want["logits"][kept], False
        yield from self._caches(sc, f"{sc} prefill", first, 0, mask)
        unified = run("unified", feeds)
        yield from _same(f"{sc} unified = prefill", unified, first, kept)
        meaning = interpret(self.model.compiled.expanded["prefill"], feeds, self._read)
        yield f"{sc} interpreter logits", meaning["logits"][kept], want["logits"][kept], False
        pair = first
        for step in range(steps):
            feed = {k: v for k, v in o.step_inputs(sc, step).items() if k != "position_ids"}
            unified = run("unified", {**feed, **past_of(pair)})
            pair = run("decode", {**feed, **past_of(pair)})
            yield f"{sc} step {step} logits", pair["logits"][:, 0], want["step_logits"][:, step], False
            yield f"{sc} unified = decode {step}", unified["logits"], pair["logits"], False
            yield from self._caches(sc, f"{sc} step {step}", pair, step + 1, mask)
        chunk = {k: v for k, v in o.step_inputs(sc, 0, steps).items() if k != "position_ids"}
        many = run("unified", {**chunk, **past_of(first)})
        yield f"{sc} several tokens logits", many["logits"], want["step_logits"], False
        yield from self._caches(sc, f"{sc} several tokens", many, steps, mask)

    def _read(self, name: str, rows: slice | None) -> Array:
        assert self.model.compiled.checkpoint is not None
        return self.model.compiled.checkpoint.read(name, rows)

    def _caches(
        self, sc: str, what: str, results: Mapping[str, Array], steps: int, mask: Array
    ) -> Iterator[Comparison]:
        kept = np.concatenate([mask, np.ones((len(mask), steps), mask.dtype)], axis=1).astype(bool)
        layers = sorted({int(k.split(".")[1]) for k in results if k.startswith("present.")})
        for layer in layers:
            present = self.oracle.present(sc, layer, steps)
            if present is not None:
                for name, reference in zip(("key", "value"), present, strict=True):
                    got = results[f"present.{layer}.{name}"]
                    pick = got.swapaxes(1, 2)[kept] if got.shape == reference.shape else got
                    yield f"{what} {name} {layer}", pick, reference.swapaxes(1, 2)[kept], True
            states = self.oracle.recurrent(sc, layer, steps)
            if states is not None:
                for name, reference in zip(("conv_state", "recurrent_state"), states, strict=True):
                    yield f"{what} {name} {layer}", results[f"present.{layer}.{name}"], reference, True

    def _rows(self) -> Iterator[Comparison]:
        """A row of a left-, right- or both-ways padded batch equals the row alone, in prefill and two steps on."""
        rng = np.random.default_rng(7)
        vocab = self.oracle.arrays[f"{self.oracle.scenarios[0]}/logits"].shape[-1]
        lengths, width = (9, 5, 7), 10
        rows = [rng.integers(3, vocab, n) for n in lengths]
        new = rng.integers(3, vocab, (len(rows), 3))
        for what, lead in (("left", [width - n for n in lengths]), ("right", [0, 0, 0]), ("ragged", [1, 2, 0])):
            ids = np.zeros((len(rows), width), np.int64)
            mask = np.zeros((len(rows), width), np.int64)
            for i, row in enumerate(rows):
                ids[i, lead[i] : lead[i] + len(row)] = row
                mask[i, lead[i] : lead[i] + len(row)] = 1
            batch = self._play(ids, mask, new)
            for i, row in enumerate(rows):
                alone = self._play(row[None], np.ones((1, len(row)), np.int64), new[i : i + 1])
                kept = mask[i].astype(bool)
                yield f"{what}-padded row {i} prefill", batch[0]["logits"][i][kept], alone[0]["logits"][0], False
                for step in (1, 2):
                    yield (
                        f"{what}-padded row {i} call {step}",
                        batch[step]["logits"][i],
                        alone[step]["logits"][0],
                        False,
                    )
                columns = np.concatenate([kept, np.ones(3, bool)])
                for name in (n for n in batch[2] if n.startswith("present.")):
                    got, reference = batch[2][name][i], alone[2][name][0]
                    if name.endswith((".key", ".value")):
                        got = got[:, columns]
                    yield f"{what}-padded row {i} {name}", got, reference, True

    def _play(self, ids: Array, mask: Array, new: Array) -> list[dict[str, Array]]:
        """Prefill, one decode step, then two tokens at once over the past."""
        ones = np.ones((len(ids), 1), np.int64)
        results = [self.model.run("prefill", {"input_ids": ids, "attention_mask": mask})]
        mask = np.concatenate([mask, ones], axis=1)
        feeds = {"input_ids": new[:, :1], "attention_mask": mask, **past_of(results[0])}
        results.append(self.model.run("decode", feeds))
        mask = np.concatenate([mask, ones, ones], axis=1)
        feeds = {"input_ids": new[:, 1:], "attention_mask": mask, **past_of(results[1])}
        results.append(self.model.run("unified", feeds))
        return results


def _same(what: str, a: Mapping[str, Array], b: Mapping[str, Array], kept: Array) -> Iterator[Comparison]:
    for name in a:
        x, y = a[name], b[name]
        if name == "logits":
            x, y = x[kept], y[kept]
        elif name.endswith((".key", ".value")):
            x, y = x.swapaxes(1, 2)[kept], y.swapaxes(1, 2)[kept]
        yield f"{what} {name}", x, y, name != "logits"


class _Encoder:
    """Every output that the graph and the oracle share, from onnxruntime and from the interpreter."""

    def __init__(self, oracle: Oracle, model: Model) -> None:
        self.oracle = oracle
        self.model = model

    def comparisons(self) -> Iterator[Comparison]:
        compared = 0
        graph = self.model.compiled.expanded["encode"]
        for scenario in self.oracle.scenarios:
            want, inputs = self.oracle.expected(scenario), self.oracle.inputs(scenario)
            names = {v.name for v in graph.inputs}
            feeds = {k: v for k, v in inputs.items() if k in names}
            if not _fits(self.model, feeds):
                continue  # another image size: an optional scenario
            checkpoint = self.model.compiled.checkpoint
            assert checkpoint is not None
            for who, got in (
                ("onnxruntime", self.model.run("encode", feeds)),
                ("interpreter", interpret(graph, feeds, checkpoint.read)),
            ):
                for name in (n for n in got if n in want):
                    compared += 1
                    x, y = (self.oracle.valid(scenario, name, a) for a in (got[name], want[name]))
                    yield f"{scenario} {who} {name}", x, y, False
        assert compared, "nothing was compared"


def _fits(model: Model, feeds: Mapping[str, Array]) -> bool:
    for wanted in model.sessions["encode"].get_inputs():
        shape = feeds[wanted.name].shape
        if any(isinstance(d, int) and d != n for d, n in zip(wanted.shape, shape, strict=True)):
            return False
    return True
