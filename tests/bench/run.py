"""Time of one prefill and of one decode step: flowc's graphs beside those of onnxruntime-genai's builder and mobius.

    make bench                                 # the peers' venv, builds, then this
    python -m tests.bench.run --rounds 20 --json figures.json

Pairs of graphs run in turn in one process, with the same onnxruntime, the same threads and bound inputs and outputs, so
that a noisy machine disturbs both alike; the figure is the median of the ratios of neighbouring runs, with quartiles.
With one thread (the default) its processor time is taken, else wall time.
Peers' graphs assume right padding without saying so: flowc is measured under `--assume right-padding`, and its default
form beside that. Decoders: SmolLM2 135M, float32. The encoder is MiniLM
beside an export that onnxruntime's own tools fused, and with a CLS pooler beside its unpruned self.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from tests.bench.build import FLOWC, OFFLINE, ROOT, checkpoint, imported
from tests.bench.measure import table

Array = np.ndarray[Any, np.dtype[Any]]
ort: Any = onnxruntime  # ships no types

GENAI, PRUNED, MOBIUS = "onnxruntime-genai", "onnxruntime-genai, pruned head", "mobius"
RIGHT, DEFAULT, PLAIN = "flowc, right padding", "flowc", "flowc, no passes"
HEAD_DIM = 64  # of SmolLM2; the genai builder's graph does not say it
TOKENS, TOOLS = "flowc, MiniLM", "onnxruntime.transformers"
CLS, UNPRUNED = "flowc, CLS token alone", "the same, not pruned"
PAIRS = ((RIGHT, GENAI), (RIGHT, PRUNED), (RIGHT, MOBIUS), (DEFAULT, RIGHT), (DEFAULT, PLAIN))


@dataclass(frozen=True, slots=True)
class Graph:
    """A model file, and whether it writes new keys into the buffer of the past."""

    path: Path
    shared: bool = False


@dataclass(frozen=True, slots=True)
class Workload:
    """What one run computes."""

    name: str
    batch: int
    new: int
    past: int = 0


class Bound:
    """A session with everything bound: calling it runs it once and returns seconds."""

    def __init__(self, graph: Graph, work: Workload, threads: int, vocab: int = 1000) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # One thread does all of it: its own processor time leaves out what others take from the machine.
        self.clock = time.thread_time if threads == 1 else time.perf_counter
        self.session = ort.InferenceSession(str(graph.path), options, ["CPUExecutionProvider"])
        self.binding = self.session.io_binding()
        rng = np.random.default_rng(0)
        buffers: dict[str, Any] = {}
        for port in self.session.get_inputs():
            if port.name.startswith("past_key_values."):
                columns = work.past + work.new if graph.shared and work.past else work.past
                width = port.shape[3] if isinstance(port.shape[3], int) else HEAD_DIM
                array = rng.standard_normal((work.batch, port.shape[1], columns, width)).astype(np.float32)
                value = ort.OrtValue.ortvalue_from_numpy(array)
                self.binding.bind_ortvalue_input(port.name, value)
                if graph.shared and work.past:
                    buffers[port.name.replace("past_key_values", "present")] = value
                continue
            if port.name == "attention_mask":
                array = np.ones((work.batch, work.past + work.new), np.int64)
            elif port.name == "token_type_ids":
                array = np.zeros((work.batch, work.new), np.int64)
            elif port.name == "logits_indices":
                array = np.full(work.batch, work.new - 1, np.int64)
            else:
                array = rng.integers(0, vocab, (work.batch, work.new))
            self.binding.bind_cpu_input(port.name, array)
        for port in self.session.get_outputs():
            if port.name in buffers:
                self.binding.bind_ortvalue_output(port.name, buffers[port.name])
            else:
                self.binding.bind_output(port.name, "cpu")
        self.keep = buffers

    def __call__(self) -> float:
        started = self.clock()
        self.session.run_with_iobinding(self.binding)
        return self.clock() - started


@dataclass(frozen=True, slots=True)
class Ratio:
    """How long the first of a pair takes beside the second."""

    pair: tuple[str, str]
    work: str
    seconds: tuple[float, float]
    median: float
    low: float
    high: float


def compare(pair: tuple[str, str], graphs: dict[str, Graph], work: Workload, rounds: int, threads: int) -> Ratio:
    """Run two graphs in turn; which goes first changes from round to round.

    The session that is opened first lies in other memory than the second and is up to 4 % slower for it, so both orders
    are measured, half of the rounds each, and what is given is the mean of their logarithms.
    """
    parts: list[Array] = []
    for order in ((0, 1), (1, 0)):
        runs: dict[int, Bound] = {which: Bound(graphs[pair[which]], work, threads) for which in order}
        for bound in runs.values():
            bound()
            bound()
        times = np.zeros((max(2, rounds // 2), 2))
        for index in range(len(times)):
            for which in order if index % 2 else order[::-1]:
                times[index, which] = runs[which]()
        parts.append(times)
        runs.clear()
    logs = [np.percentile(np.log(t[:, 0] / t[:, 1]), (25, 50, 75)) for t in parts]
    low, middle, high = (float(x) for x in np.exp(np.mean(logs, axis=0)))
    medians = np.median(np.concatenate(parts), axis=0)
    return Ratio(pair, work.name, (float(medians[0]), float(medians[1])), middle, low, high)


def decoders(source: Path, peers: Path, scratch: Path) -> dict[str, dict[str, Graph]]:
    """Prefill and decode graphs of every contender that could be built."""
    spec = imported(source, scratch / "spec" / "model.yaml")
    passes = [word for name in _passes() for word in ("--no-pass", name)]
    found: dict[str, dict[str, Graph]] = {"prefill": {}, "decode": {}}
    # The caches are bound as buffers of a fixed length, as the peers' are.
    right, static = ["--assume", "right-padding"], ["--cache", "static"]
    for name, options in ((RIGHT, [*right, *static]), (DEFAULT, static), (PLAIN, passes)):
        out = scratch / name.replace(" ", "-").replace(",", "") / "model.onnx"
        _quiet([*FLOWC, "build", str(spec), "-o", str(out), "--verify", "off", *options])
        found["prefill"][name] = Graph(out.with_name("model.prefill.onnx"))
        found["decode"][name] = Graph(out.with_name("model.decode.onnx"), name != PLAIN)
    python = str(peers / "bin" / "python")
    genai = [python, "-m", "onnxruntime_genai.models.builder", "-i", str(source), "-p", "fp32", "-e", "cpu"]
    for name, options in ((GENAI, []), (PRUNED, ["--extra_options", "prune_lm_head=true"])):
        out = scratch / name.replace(" ", "-").replace(",", "")
        _quiet([*genai, "-o", str(out), "-c", str(out / "cache"), *options])
        for phase in found:
            found[phase][name] = Graph(out / "model.onnx", shared=True)
    out = scratch / "mobius"
    _quiet([str(peers / "bin" / "mobius"), "build", "--model", str(source), str(out), "--ep", "cpu", "--dtype", "f32"])
    for phase in found:
        found[phase][MOBIUS] = Graph(out / "model.onnx", shared=True)
    return found


def encoders(source: Path, peers: Path, scratch: Path) -> dict[str, Graph]:
    """MiniLM by flowc and by onnxruntime's tools; and with a CLS token alone, with and without what that saves."""
    spec = imported(source, scratch / "minilm" / "model.yaml")
    text = spec.read_text(encoding="utf-8").replace("allow_unused: [", "allow_unused: ['pooler.*', ")
    tokens = "\n".join([line for line in text.splitlines() if not line.startswith("  - pool")])
    pooled = f"{tokens}\n  - cls_token_pool\noutput: cls_pooled\n"
    found: dict[str, Graph] = {}
    forms: tuple[tuple[str, str, list[str]], ...] = (
        (TOKENS, tokens, []),
        (CLS, pooled, []),
        (UNPRUNED, pooled, ["--no-pass", "hoist_token_selection"]),
    )
    for name, flow, options in forms:
        spec.write_text(flow, encoding="utf-8")
        out = scratch / name.replace(" ", "-").replace(",", "") / "model.onnx"
        _quiet([*FLOWC, "build", str(spec), "-o", str(out), "--verify", "off", *options])
        found[name] = Graph(out)
    found[TOOLS] = Graph(scratch / "tools" / "model.onnx")
    script = ROOT / "tests" / "bench" / "export_bert.py"
    _quiet([str(peers / "bin" / "python"), str(script), str(source), str(found[TOOLS].path)])
    return found


def _passes() -> Iterable[str]:
    from flowc.passes.pipeline import pass_names

    return pass_names()


def _quiet(command: list[str]) -> None:
    environment = {**os.environ, **OFFLINE}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"exit code {done.returncode} from: {' '.join(command)}\n{done.stderr[-2000:]}")


def report(ratios: list[Ratio]) -> str:
    """The table: one line a pair and workload."""
    rows = [("first / second", "workload", "ms", "ms", "ratio", "quartiles")]
    for r in ratios:
        times = (f"{1e3 * r.seconds[0]:.1f}", f"{1e3 * r.seconds[1]:.1f}")
        rows.append((" / ".join(r.pair), r.work, *times, f"{r.median:.3f}", f"{r.low:.3f}..{r.high:.3f}"))
    return table(rows)


def main() -> int:
    """The command line. Exit codes: 0 measured, 1 something could not be built, 4 the peers are not installed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    cache = Path(os.environ.get("FLOWC_CACHE") or Path.home() / ".cache" / "flowc")
    parser.add_argument("--rounds", type=int, default=20, help="decode steps are ten times as many")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--peers", type=Path, default=ROOT / ".venvs" / "peers", help="venv (default: %(default)s)")
    parser.add_argument("--scratch", type=Path, default=ROOT / "out" / "bench-run", help="default: %(default)s")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    options = parser.parse_args()
    if not (options.peers / "bin" / "mobius").is_file():
        print("the peers are not installed: make bench-peers", file=sys.stderr)
        return 4
    ratios: list[Ratio] = []

    def take(pair: tuple[str, str], graphs: dict[str, Graph], work: Workload, rounds: int) -> None:
        ratios.append(compare(pair, graphs, work, rounds, options.threads))
        print(f"{' / '.join(pair)}  {work.name}  {ratios[-1].median:.3f}", file=sys.stderr, flush=True)

    try:
        models = decoders(checkpoint(cache, options.peers), options.peers, options.scratch)
        for pair in PAIRS:
            for new in (128, 512):
                take(pair, models["prefill"], Workload(f"prefill {new}", 1, new), options.rounds)
            for past in (128, 512):
                take(pair, models["decode"], Workload(f"decode at {past}", 1, 1, past), options.rounds * 10)
        minilm = cache / "models" / "minilm"
        if minilm.is_dir():
            graphs = encoders(minilm, options.peers, options.scratch)
            for pair in ((TOKENS, TOOLS), (CLS, UNPRUNED)):
                for batch in (1, 16):
                    take(pair, graphs, Workload(f"{batch} x 128 tokens", batch, 128), options.rounds)
    except RuntimeError as error:
        print(error, file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(options.scratch, ignore_errors=True)
        if ratios:
            print(report(ratios))
    if options.json:
        figures = [{"pair": r.pair, "work": r.work, "ratio": r.median, "quartiles": (r.low, r.high)} for r in ratios]
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
