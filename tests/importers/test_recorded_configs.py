"""Configurations that were once read wrong or refused, against what transformers computed from them.

golden/configs.json is written by `python -m tests.parity.record_configs`; nothing here needs torch.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

from flowc.build.compiled import Request
from flowc.compile import compile_file
from flowc.errors import SpecError
from flowc.frontend.state import Options
from flowc.importers import import_checkpoint
from flowc.ir.interpret import interpret
from tests.oracle_io import ROOT, Array
from tests.parity.seeded import feeds_of, weight

st: Any = safetensors.numpy  # its types are partly unknown
CASES: list[dict[str, Any]] = json.loads((ROOT / "golden" / "configs.json").read_text(encoding="utf-8"))
TOLERANCE = 2e-4


def checkpoint_of(case: dict[str, Any], folder: Path) -> Path:
    """The case's checkpoint: its configuration, and weights out of their names."""
    (folder / "config.json").write_text(json.dumps(case["config"], indent=1), encoding="utf-8")
    made = {name: weight(name, tuple(shape), case["seed"]) for name, shape in case["tensors"].items()}
    st.save_file(made, folder / "model.safetensors")
    return folder


def named(cases: list[dict[str, Any]]) -> Any:
    """A parameter for each case, under its name."""
    return pytest.mark.parametrize("case", [pytest.param(case, id=case["name"]) for case in cases])


@pytest.mark.golden
@named([case for case in CASES if "results" in case])
def test_a_configuration_means_what_transformers_reads(case: dict[str, Any], tmp_path: Path) -> None:
    spec = tmp_path / "model.yaml"
    spec.write_text(import_checkpoint(checkpoint_of(case, tmp_path)).text(tmp_path), encoding="utf-8")
    phase = "prefill" if case["kind"] == "decoder" else "encode"
    compiled = compile_file(spec, Request(graphs=(phase,), options=Options(logits="all")))
    assert compiled.checkpoint is not None
    feeds = feeds_of(case["kind"], case["config"].get("text_config", case["config"]), case["seed"])
    results = interpret(compiled.expanded[phase], feeds, compiled.checkpoint.read)
    compared = sorted(results.keys() & case["results"].keys())
    assert compared
    for name in compared:
        got = results[name][..., : len(case["results"][name]) // (results[name].size // results[name].shape[-1])]
        want = np.array(case["results"][name], np.float32).reshape(got.shape)
        kept = _kept(got, feeds)
        assert np.abs(got[kept] - want[kept]).max() <= TOLERANCE * max(1.0, float(np.abs(want[kept]).max())), name


def _kept(array: Array, feeds: dict[str, Array]) -> Any:
    mask = feeds.get("attention_mask")
    return mask.astype(bool) if mask is not None and array.shape[:2] == mask.shape else ...


@pytest.mark.golden
@named([case for case in CASES if "results" not in case])
def test_a_configuration_that_cannot_be_read_is_refused_by_its_field(case: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        import_checkpoint(checkpoint_of(case, tmp_path))
    found = [d for d in caught.value.diagnostics if any(f"'{field}'" in d.message for field in case["fields"])]
    assert found, caught.value.render()
    assert all(d.span is not None for d in found)


@pytest.mark.golden
@pytest.mark.parametrize("fields", [{"local_attention": 0}, {"sliding_window": 0}], ids=str)
def test_no_reach_is_one_spec_however_it_is_written(fields: dict[str, int], tmp_path: Path) -> None:
    """HuggingFace halves local_attention, so 0 and 1 are one reach; sliding_window is the half itself."""
    case = next(case for case in CASES if case["name"] == "modernbert_no_reach")
    config = {k: v for k, v in case["config"].items() if k != "local_attention"} | fields
    texts: list[str] = []
    for number, one in enumerate((case, {**case, "config": config})):
        folder = tmp_path / str(number) / "model"
        folder.mkdir(parents=True)
        texts.append(import_checkpoint(checkpoint_of(one, folder)).text(folder))
    assert texts[0] == texts[1]
    assert "reach: [null, 0, 0]" in texts[0]
