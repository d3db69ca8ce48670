"""What is built is what was built before, to the byte: golden/built_bytes.json, which `built_bytes.py` writes."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path

import pytest

from tests.project.built_bytes import MADE_WITH, RECORD, digests, models

RECORDED = json.loads(RECORD.read_text(encoding="utf-8"))


def test_every_model_is_recorded() -> None:
    assert set(RECORDED["models"]) == set(models())


@pytest.mark.parametrize("name", models())
def test_the_bytes_are_those_recorded(name: str) -> None:
    made_with = {library: version(library) for library in MADE_WITH}
    if made_with != RECORDED["made_with"]:
        pytest.skip(f"the record was made with {RECORDED['made_with']}, this environment has {made_with}")
    assert dict(digests(models()[name])) == RECORDED["models"][name]


def test_a_changed_number_shows(tmp_path: Path) -> None:
    spec = tmp_path / "model.yaml"
    text = models()["examples/tiny-llama"].read_text(encoding="utf-8")
    spec.write_text(text.replace("norm_eps: 1e-5", "norm_eps: 1.00001e-5"), encoding="utf-8")
    assert spec.read_text(encoding="utf-8") != text
    assert dict(digests(spec)) != RECORDED["models"]["examples/tiny-llama"]
