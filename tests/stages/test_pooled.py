"""Poolers of imported encoders: against the oracles, and rows of padded batches against the same rows alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from flowc.build.compiled import Request
from flowc.compile import build, compile_file
from flowc.importers import import_checkpoint
from flowc.importers.pooling import NAMES
from tests.oracle_io import Array, Oracle, case_folders
from tests.parity.harness import Model

CASES = sorted(
    name
    for name, folder in case_folders().items()
    if (folder / "config.json").is_file()
    and json.loads((folder / "case.json").read_text())["family"]
    in ("bert", "roberta", "mpnet", "distilbert", "nomic_bert", "modernbert")
)
# Positions of BERT and DistilBERT are those of the columns, so a row with padding in front is another input.
BY_COLUMN = ("bert", "distilbert")
OUTPUTS = tuple(f"{n.removesuffix('_l2')}_pooled{'_l2' if n.endswith('_l2') else ''}" for n in NAMES)


def made(case: str, target: str, folder: Path) -> tuple[Model, Oracle]:
    """The case with every pooler that can be asked for."""
    oracle = Oracle(case_folders()[case])
    spec = folder / "model.yaml"
    spec.write_text(import_checkpoint(oracle.folder, NAMES).text(folder), encoding="utf-8")
    compiled = compile_file(spec, Request(target=target))
    build(compiled, folder / "out" / "model.onnx", verify="off")
    return Model(compiled, folder / "out"), oracle


@pytest.mark.golden
@pytest.mark.parametrize("target", ["ort-cpu", "portable"])
@pytest.mark.parametrize("case", CASES)
def test_poolers_and_padding(case: str, target: str, tmp_path: Path) -> None:
    model, oracle = made(case, target, tmp_path)
    for scenario in oracle.scenarios:
        got = model.run("encode", oracle.inputs(scenario))
        assert set(OUTPUTS) <= got.keys()
        names = [n for n in ("mean_pooled", "mean_pooled_l2", "cls_pooled", "pooler_output") if n in got]
        wanted = {n: got[n] for n in names if f"{scenario}/{n}" in oracle.arrays}
        assert len(wanted) >= 3
        assert not oracle.mismatches(scenario, wanted, atol=1e-5)
    _rows_alone(model, oracle)


def _rows_alone(model: Model, oracle: Oracle) -> None:
    rng = np.random.default_rng(11)
    family, vocab = oracle.meta["family"], 60
    lengths, width = (9, 4, 7), 11
    rows = [rng.integers(3, vocab, n) for n in lengths]
    pad = 1 if family in ("roberta", "mpnet") else 0
    leads = {"right": (0, 0, 0), "left": tuple(width - n for n in lengths), "both": (1, 3, 2)}
    for what, lead in leads.items():
        if family in BY_COLUMN and what != "right":
            continue
        ids, mask = np.full((3, width), pad, np.int64), np.zeros((3, width), np.int64)
        for i, row in enumerate(rows):
            ids[i, lead[i] : lead[i] + len(row)] = row
            mask[i, lead[i] : lead[i] + len(row)] = 1
        batch = model.run("encode", _feeds(ids, mask))
        other = model.run("encode", _feeds(np.where(mask != 0, ids, 5 if pad == 0 else pad), mask))
        for i, row in enumerate(rows):
            alone = model.run("encode", _feeds(row[None], np.ones((1, len(row)), np.int64)))
            for name, want in alone.items():
                for results in (batch, other):  # whatever the ids at padding are
                    got = results[name][i]
                    got = got[mask[i] != 0] if want.ndim == 3 else got
                    np.testing.assert_allclose(got, want[0], rtol=1e-5, atol=1e-5, err_msg=f"{what} row {i} {name}")


def _feeds(ids: Array, mask: Array) -> dict[str, Array]:
    return {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
