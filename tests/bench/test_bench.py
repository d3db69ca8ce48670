"""The benchmarks measure what they say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from flowc.build.compiled import Request
from flowc.compile import build, compile_file
from tests.bench import commands, large_model
from tests.bench import run as runs
from tests.bench.build import WALL_GOALS, report, verdict
from tests.bench.measure import Contender, Failed, Sample, Summary, in_turn, measure, table
from tests.oracle_io import ROOT

HOLD = 200_000_000


def run(program: str, log: Path) -> Sample:
    return measure([sys.executable, "-S", "-c", program], {}, log)


def test_peak_is_the_largest_process_of_the_command(tmp_path: Path) -> None:
    # Measured from a process of its own: this one holds numpy, which its children would be charged with.
    program = f"""
import sys; from pathlib import Path; from tests.bench.measure import measure
log = Path({str(tmp_path)!r}) / "log"
def peak(code): return measure([sys.executable, "-S", "-c", code], {{}}, log).peak
print(peak("pass"), peak("b'x' * {HOLD}"),
      peak("import subprocess, sys; subprocess.run([sys.executable, '-S', '-c', 'bytearray(1) * {HOLD}'])"))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    idle, holding, grandchild = map(int, done.stdout.split())
    assert idle < HOLD / 2
    assert HOLD < holding < 1.5 * HOLD
    assert HOLD < grandchild < 1.5 * HOLD


def test_seconds_are_wall_time(tmp_path: Path) -> None:
    assert run("import time; time.sleep(0.3)", tmp_path / "log").seconds >= 0.3


def test_a_command_that_fails_is_not_measured(tmp_path: Path) -> None:
    with pytest.raises(Failed, match=r"exit code 3 from: [^\n]*\nbecause"):
        run("import sys; print('because'); sys.exit(3)", tmp_path / "log")


def test_contenders_take_turns_and_the_first_round_does_not_count(tmp_path: Path) -> None:
    order: list[str] = []

    def contender(name: str) -> Contender:
        out = tmp_path / name
        command = (sys.executable, "-S", "-c", f"open({str(out)!r}, 'w')")
        return Contender(name, command, out, lambda: order.append(name))

    samples = in_turn([contender("a"), contender("b")], 2, tmp_path / "log")
    assert order == ["a", "b"] * 3
    assert {name: len(taken) for name, taken in samples.items()} == {"a": 2, "b": 2}


def test_a_command_that_writes_nothing_is_not_measured(tmp_path: Path) -> None:
    idle = Contender("idle", (sys.executable, "-S", "-c", "pass"), tmp_path / "never", lambda: None)
    with pytest.raises(Failed, match="wrote no never"):
        in_turn([idle], 1, tmp_path / "log")


def test_report_divides_by_the_better_peer() -> None:
    def summary(seconds: float, peak: float) -> Summary:
        return Summary(seconds, seconds, seconds, peak)

    names = dict.fromkeys(WALL_GOALS, summary(2.0, 300e6))
    text = report({"onnxruntime-genai": summary(10.0, 1000e6), "mobius": summary(8.0, 1200e6), **names})
    assert "flowc, verify off: time, of the faster peer: 0.25 (goal: at most 0.25) reached" in text
    assert "flowc, verify off: memory, of the leaner peer: 0.3 (goal: at most 0.35) reached" in text
    assert verdict("x", 0.26, 0.25).endswith("MISSED")


def test_median_and_table() -> None:
    found = Summary.of([Sample(3.0, 30), Sample(1.0, 10), Sample(2.0, 50)])
    assert found == Summary(2.0, 1.0, 3.0, 30)
    assert table([("a", "bb"), ("ccc", "d")]) == "a    bb\n---  --\nccc   d"


def test_large_model_is_a_llama_folder_that_safetensors_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, size in {"HIDDEN": 16, "FFN": 24, "HEADS": 4, "KV_HEADS": 2, "HEAD_DIM": 4, "VOCAB": 32}.items():
        monkeypatch.setattr(large_model, name, size)
    monkeypatch.setattr(large_model, "BLOCK", 100)  # tensors of several blocks
    large_model.write(tmp_path / "one", layers=2)
    large_model.write(tmp_path / "two", layers=2)
    tensors = safetensors.numpy.load_file(tmp_path / "one" / "model.safetensors")
    assert {name: tensor.shape for name, tensor in tensors.items()} == dict(large_model.shapes(2))
    assert all(np.ptp(tensor) > 0.1 for tensor in tensors.values())
    assert len({tensor.tobytes() for tensor in tensors.values()}) == len(tensors)
    one, two = ((tmp_path / run / "model.safetensors").read_bytes() for run in ("one", "two"))
    assert one == two


def test_runs_are_compared_in_both_orders_with_bound_caches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = Request(graphs=("prefill", "decode"))
    build(compile_file(ROOT / "examples" / "tiny-llama.yaml", request), tmp_path / "model.onnx", verify="off")
    opened: list[str] = []

    class Watched(runs.Bound):
        def __init__(self, graph: runs.Graph, *rest: Any) -> None:
            opened.append(graph.path.name)
            super().__init__(graph, *rest, vocab=256)

    monkeypatch.setattr(runs, "Bound", Watched)
    prefill, decode = (tmp_path / f"model.{phase}.onnx" for phase in ("prefill", "decode"))
    for path, work, shared in (
        (prefill, runs.Workload("prefill", 2, 5), False),
        (decode, runs.Workload("decode", 2, 1, 7), True),
    ):
        opened.clear()
        graphs = {"a": runs.Graph(path, shared), "b": runs.Graph(path, False)}
        found = runs.compare(("a", "b"), graphs, work, 4, 1)
        assert found.low <= found.median <= found.high
        assert min(found.seconds) > 0
        assert len(opened) == 4
    assert "a / b" in runs.report([found])


def test_commands_are_compared_in_turn_and_the_first_round_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[Path, str]] = []

    def timed(checkout: Path, words: list[str], folder: Path) -> float:
        given.append((checkout, words[0]))
        assert all((folder / word).is_file() for word in words if word.endswith(".yaml"))
        return (100.0 if len(given) <= 2 else 4.0) if checkout == tmp_path else 1.0

    monkeypatch.setattr(commands, "processor_time", timed)
    monkeypatch.setattr(commands, "COMMANDS", {"check": (["check", "large.yaml"], 0.5)})
    found = commands.compare(tmp_path, 3, tmp_path)
    assert given == [(tmp_path, "check"), (ROOT, "check")] * 4
    assert commands.report(found).splitlines()[-1].split() == ["check", "4.000", "1.000", "0.25", "0.25", "0.50"]


def test_a_command_that_fails_has_no_processor_time(tmp_path: Path) -> None:
    commands.write_specs(tmp_path)
    assert commands.processor_time(ROOT, ["check", "large.yaml"], tmp_path) > 0
    with pytest.raises(RuntimeError, match=r"flowc check nothing\.yaml"):
        commands.processor_time(ROOT, ["check", "nothing.yaml"], tmp_path)
