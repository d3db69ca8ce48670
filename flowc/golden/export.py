"""ONNX test data: cases that onnx's backend runner, onnx_test_runner and onnxruntime_perf_test replay.

    test_<name>_<graph>/model.onnx  model.onnx.data  config.txt  data.json
    test_<name>_<graph>/test_data_set_0/input_0.pb …  output_0.pb …

Expected outputs are the interpreter's, not onnxruntime's: whoever replays them compares with what the spec means.
Batches are not padded, since numbers at padding are not specified and the runners compare all of them.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from flowc.build.manifest import Manifest
from flowc.errors import SpecError, cannot_write
from flowc.golden.case import Case
from flowc.ir.phases import PHASES, going_on, starting, without_cache
from flowc.outside.writing import claim
from flowc.spec.components import refuse_components
from flowc.verify.built_model import BuiltModel
from flowc.verify.inputs import Array, Call

RTOL = 1e-3
BATCH, NEW = 2, 5


def export(case: Case, manifest: Manifest, subject: BuiltModel, folder: Path) -> list[Path]:
    """Write a test for each graph of a build; returns their folders.

    Raises:
        FlowError: what `cannot_write` gives. Whoever calls has asked `claim_folders` before.
    """
    refuse_components(manifest.name, bool(manifest.components), "yet export tests of")
    written: list[Path] = []
    for call in _calls(case, subject):
        target = _target(case, call.phase, folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=".flowc-", dir=folder) as work:
                _write(case, manifest, subject, call, Path(work) / target.name)
                (Path(work) / target.name).rename(target)
        except OSError as error:
            raise cannot_write(target, error) from None
        written.append(target)
    return written


def claim_folders(case: Case, folder: Path) -> None:
    """Refuse, before a model is built, what `export` could not write. Raises SpecError, MissingTool."""
    for phase in PHASES:
        target = _target(case, phase, folder)
        if target.exists():
            raise SpecError.of("bad-output", f"{target} is already there", hint="remove it, or choose another folder")
        claim(target)


def _target(case: Case, phase: str, folder: Path) -> Path:
    return folder / f"test_{case.name}_{phase}"


def _calls(case: Case, subject: BuiltModel) -> list[Call]:
    feeder, graphs = subject.feeder, subject.graphs
    whole = without_cache(graphs)
    if whole is not None:
        batch, seed = (case.inputs.batch, case.inputs.seed) if case.inputs else (BATCH, 1)
        columns = (case.inputs.columns if case.inputs else NEW) if feeder.takes_tokens else 1
        mask = np.ones((batch, columns), np.int64)
        return [feeder.call("export", whole, feeder.draw(batch, columns, seed), mask)]
    drawn = feeder.draw(BATCH, NEW + 1, 1)
    if feeder.names_tokens and case.prompts and case.prompts[0].ids:
        ids = np.array(case.prompts[0].ids, np.int64)
        drawn["input_ids"] = np.resize(ids, drawn["input_ids"].shape)
    mask = np.ones((BATCH, NEW + 1), np.int64)
    calls = [feeder.call("export", p, drawn, mask[:, :NEW]) for p in starting(graphs)]
    for step in (p for p in going_on(graphs, 1) if graphs[p].phase.tokens == "one"):
        past: Mapping[str, Array] = feeder.made_up_past(step, BATCH, NEW, 1)
        if calls:
            past = feeder.past_of(subject.reference(calls[0]))
        calls.append(feeder.call("export", step, drawn, mask, NEW, past))
    return calls


def _write(case: Case, manifest: Manifest, subject: BuiltModel, call: Call, target: Path) -> None:
    import onnx
    from onnx import numpy_helper

    data = target / "test_data_set_0"
    data.mkdir(parents=True)
    shutil.copyfile(subject.files[call.phase], target / "model.onnx")
    for record in manifest.data:
        shutil.copyfile(manifest.folder / record.file, target / record.file)
    expected = subject.reference(call)
    graph = subject.graphs[call.phase]
    arrays = {"input": [(v.name, call.feeds[v.name]) for v in graph.inputs],
              "output": [(o.name, expected[o.name]) for o in graph.outputs]}  # fmt: skip
    for kind, ports in arrays.items():
        for number, (name, array) in enumerate(ports):
            tensor: onnx.TensorProto = numpy_helper.from_array(np.ascontiguousarray(array), name)
            (data / f"{kind}_{number}.pb").write_bytes(tensor.SerializeToString(deterministic=True))
    (target / "config.txt").write_text(
        f"per_sample_tolerance: {case.absolute:g}\nrelative_per_sample_tolerance: {RTOL:g}\n", encoding="utf-8"
    )
    (target / "data.json").write_text(json.dumps({"atol": case.absolute, "rtol": RTOL}) + "\n", encoding="utf-8")
