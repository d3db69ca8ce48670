from __future__ import annotations

import contextlib
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowc.build.compiled import Request
from flowc.compile import compile_file
from flowc.errors import FlowError
from flowc.importers import import_checkpoint
from tests.oracle_io import COMMITTED

CASES = sorted(p.parent.name for p in COMMITTED.glob("*/config.json"))
WEIGHTS = ("*.safetensors", "*.index.json")

NUMBERS = (0, -1, 1, 2**31, 2**63, 10**30, 1e-5, -0.5, 1e308)
WORDS = ("", "silu", "gelu", "relu", "default", "yarn", "longrope", "full_attention", "$hidden", "{i}", "é\n")

small = st.none() | st.booleans() | st.integers(-3, 40) | st.sampled_from(NUMBERS) | st.sampled_from(WORDS)
values = st.recursive(
    small,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@st.composite
def damaged(draw: st.DrawFn) -> tuple[str, str]:
    """A case, and its configuration with some fields of another value, gone, or new."""
    case = draw(st.sampled_from(CASES))
    config: dict[str, Any] = json.loads((COMMITTED / case / "config.json").read_text())
    for _ in range(draw(st.integers(1, 3))):
        key = draw(st.sampled_from(sorted(config)) | st.text(min_size=1, max_size=12))
        if draw(st.integers(0, 3)) == 0:
            config.pop(key, None)
        else:
            config[key] = draw(values)
        if not config:
            break
    return case, json.dumps(config)


def imported(case: str, config: str) -> bool:
    """Import and compile: a spec that compiles (true), or an error that a user can read."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for pattern in WEIGHTS:
            for file in (COMMITTED / case).glob(pattern):
                (folder / file.name).symlink_to(file)
        (folder / "config.json").write_text(config, encoding="utf-8")
        with contextlib.suppress(FlowError):
            spec = folder / "model.yaml"
            spec.write_text(import_checkpoint(folder).text(folder), encoding="utf-8")
            compile_file(spec, Request())
            return True
    return False


@pytest.mark.parametrize("case", CASES)
def test_the_configurations_that_are_damaged_are_sound(case: str) -> None:
    assert imported(case, (COMMITTED / case / "config.json").read_text())


@settings(max_examples=150)
@given(damaged())
def test_a_damaged_configuration_is_refused_or_works(given_: tuple[str, str]) -> None:
    imported(*given_)


@pytest.mark.slow
@settings(max_examples=10_000)
@given(damaged())
def test_ten_thousand_damaged_configurations(given_: tuple[str, str]) -> None:
    imported(*given_)
