"""A sample of what `python -m tests.realistic` and `python -m tests.realistic.faults` run by the thousand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.mutation.faults import FAULTS, Fault
from tests.realistic.faults import planted_in
from tests.realistic.judging import judged
from tests.realistic.models import Model, models
from tests.realistic.weights import real_like

SAMPLE = (
    "qwen2",
    "gemma3",
    "qwen3-moe",
    "qwen3_5_text_b",
    "bert",
    "dinov2_reg_gelu",
    "modernbert",
    "flux-double-block",
)


def test_every_family_is_there() -> None:
    assert len(models()) >= 50


def test_weights_have_what_real_ones_have() -> None:
    shapes = {
        "model.embed_tokens.weight": (256, 64), "model.layers.0.self_attn.k_proj.bias": (32,),
        "model.layers.0.input_layernorm.weight": (64,), "lm_head.weight": (256, 64),
    }  # fmt: skip
    drawn = [real_like(shapes, seed) for seed in range(40)]
    assert max(float(np.abs(a["model.layers.0.self_attn.k_proj.bias"]).max()) for a in drawn) > 120
    assert max(float(np.abs(a["model.embed_tokens.weight"][0]).max()) for a in drawn) >= 3000
    gains = [a["model.layers.0.input_layernorm.weight"] for a in drawn]
    assert max(float(g.max() / g.min()) for g in gains) > 50
    distances = [np.abs(a["lm_head.weight"][:, None] - a["lm_head.weight"][None]).max(axis=-1) for a in drawn]
    assert min(float(d[d > 0].min()) for d in distances) < 1e-5
    assert all(np.array_equal(real_like(shapes, 3)[n], drawn[3][n]) for n in shapes)


@pytest.mark.parametrize("name", SAMPLE)
def test_real_like_numbers_are_believed(name: str, tmp_path: Path) -> None:
    number = next(i for i, model in enumerate(models()) if model.name == name)
    assert judged(models()[number], number, "ort-cpu", tmp_path).alarms == ()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(200))
def test_real_like_numbers_of_every_family_are_believed(seed: int, tmp_path: Path) -> None:
    model: Model = models()[seed % len(models())]
    target = ("ort-cpu", "portable")[seed // len(models()) % 2]
    assert judged(model, seed, target, tmp_path).alarms == ()


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_a_fault_is_caught_in_real_like_numbers(fault: Fault, tmp_path: Path) -> None:
    assert planted_in(fault, 1, tmp_path).caught
