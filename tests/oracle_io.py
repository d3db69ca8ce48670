"""Reads the oracle folders: tiny checkpoints and what HuggingFace computes from them.

    golden/oracles/CASE                   the cases that travel with this repository
    $FLOWC_SHARED/oracles/public/CASE     all public cases, where they are at hand

A folder holds a checkpoint as HuggingFace saves it, `case.json` (facts about the case) and `ref.npz`, whose keys are
`<scenario>/<name>`: inputs and expected outputs of one run, for instance `b2/logits` of a batch of two. Numbers at
padding positions are not specified; `Oracle.mismatches` compares only what the mask keeps.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

ROOT = Path(__file__).resolve().parent.parent
COMMITTED = ROOT / "golden" / "oracles"

MARGIN = 6
"""How many times the rounding noise of a case a right result may be off."""
RTOL = 1e-5
"""Relative tolerance beside the absolute one."""

INPUTS = frozenset(
    {
        *("input_ids", "attention_mask", "position_ids", "token_type_ids", "pixel_values"),
        *("step_input_ids", "step_position_ids"),
        *("hidden_states", "encoder_hidden_states", "pooled_projections", "timestep", "img_ids", "txt_ids", "guidance"),
    }
)


def shared_folder() -> Path | None:
    """Folder named by FLOWC_SHARED, or `shared` beside the checkout; None where there is none."""
    folder = Path(os.environ.get("FLOWC_SHARED") or ROOT.parent / "shared")
    return folder if folder.is_dir() else None


class Folders(dict[str, Path]):
    """Folders of cases by name. Where there is no shared folder, a test that asks for one of its cases is skipped."""

    def __missing__(self, name: str) -> Path:
        if shared_folder() is None:
            import pytest

            pytest.skip(f"oracle case {name} is not committed and there is no shared folder: set FLOWC_SHARED")
        raise KeyError(name)


@functools.cache
def case_folders() -> Folders:
    """Folder of every case that can be read here, by name; a committed one hides its shared twin."""
    shared = shared_folder()
    roots = [*([shared / "oracles" / "public"] if shared else []), COMMITTED]
    return Folders({case.parent.name: case.parent for root in roots for case in sorted(root.glob("*/case.json"))})


class Oracle:
    """One case. Scenarios are named runs of it: `b1`, `b2` and so on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.meta: dict[str, Any] = json.loads((folder / "case.json").read_text(encoding="utf-8"))
        with np.load(folder / "ref.npz", allow_pickle=False) as archive:
            self.arrays: dict[str, Array] = {name: archive[name] for name in archive.files}

    @property
    def scenarios(self) -> list[str]:
        """Names of the runs."""
        return sorted({name.split("/", 1)[0] for name in self.arrays})

    def allowed(self, *, cached: bool = False) -> float:
        """Absolute tolerance of results, or of cached keys, values and states: MARGIN times the case's own noise.

        The noise is what rounding alone did to HuggingFace's numbers when the case was recorded: float64 for float32,
        another attention kernel, cached steps for one forward, a padded row for the row alone.
        """
        ways: list[dict[str, float]] = [way for way in self.meta["noise"].values() if isinstance(way, dict)]
        noise = [n for way in ways for name, n in way.items() if name.startswith(("cache_", "state")) is cached]
        assert max(noise) > 0, f"{self.folder.name} records no noise"
        return MARGIN * max(noise)

    def all(self, scenario: str) -> dict[str, Array]:
        """Every array of a run, inputs and outputs, by name."""
        prefix = f"{scenario}/"
        return {name.removeprefix(prefix): array for name, array in self.arrays.items() if name.startswith(prefix)}

    def inputs(self, scenario: str) -> dict[str, Array]:
        """What to feed in the prefill (or in the only run of an encoder)."""
        return {n: a for n, a in self.all(scenario).items() if n in INPUTS and not n.startswith("step_")}

    def expected(self, scenario: str) -> dict[str, Array]:
        """What HuggingFace gives."""
        return {name: array for name, array in self.all(scenario).items() if name not in INPUTS}

    def prompt_length(self, scenario: str) -> int:
        """Columns of the prefill."""
        return int(self.arrays[f"{scenario}/input_ids"].shape[1])

    def step_count(self, scenario: str) -> int:
        """Decode steps after the prefill."""
        return int(self.arrays[f"{scenario}/step_input_ids"].shape[1])

    def step_inputs(self, scenario: str, step: int, count: int = 1) -> dict[str, Array]:
        """What to feed in decode step `step` (from 0), or in a chunk of `count` steps from there on."""
        arrays = self.all(scenario)
        mask = arrays["attention_mask"]
        grown = np.ones((mask.shape[0], step + count), mask.dtype)
        return {
            "input_ids": arrays["step_input_ids"][:, step : step + count],
            "position_ids": arrays["step_position_ids"][:, step : step + count],
            "attention_mask": np.concatenate([mask, grown], axis=1),
        }

    def present(self, scenario: str, layer: int, steps: int = 0) -> tuple[Array, Array] | None:
        """Keys (rotated) and values [B, kv_heads, T, head_dim] after `steps` decode steps; None if not cached."""
        length = self.prompt_length(scenario) + steps
        keys = self.arrays.get(f"{scenario}/cache_key.{layer}")
        if keys is None:
            return None
        return keys[:, :, :length], self.arrays[f"{scenario}/cache_value.{layer}"][:, :, :length]

    def recurrent(self, scenario: str, layer: int, steps: int = 0) -> tuple[Array, Array] | None:
        """conv_state [B, C, K-1] and recurrent_state of a linear-attention layer; None for other layers.

        HuggingFace keeps K columns of the conv state; flowc's contract is the last K - 1, which this returns.
        """
        moment = f"step{steps - 1}" if steps else "prefill"
        conv = self.arrays.get(f"{scenario}/{moment}.conv_state.{layer}")
        if conv is None:
            return None
        return conv[..., 1:], self.arrays[f"{scenario}/{moment}.recurrent_state.{layer}"]

    def valid(self, scenario: str, name: str, array: Array) -> Array:
        """The part of an output that the attention mask keeps, flattened over batch and position."""
        mask = self.arrays.get(f"{scenario}/attention_mask")
        if mask is None:
            return array
        kept = mask.astype(bool)
        if name.startswith(("logits", "hidden", "last_hidden_state")) and array.shape[:2] == kept.shape:
            return array[kept]
        if name.startswith(("cache_key", "cache_value")):
            grown = np.ones((kept.shape[0], array.shape[2] - kept.shape[1]), bool)
            return array.swapaxes(1, 2)[np.concatenate([kept, grown], axis=1)]
        return array

    def error(self, scenario: str, name: str, got: Array, want: Array | None = None) -> float:
        """Largest absolute difference over valid positions; infinite for another shape, NaN or Inf."""
        want = self.arrays[f"{scenario}/{name}"] if want is None else want
        if got.shape != want.shape:
            return float("inf")
        difference = np.abs(
            self.valid(scenario, name, got).astype(np.float64) - self.valid(scenario, name, want).astype(np.float64)
        )
        if not np.isfinite(difference).all():
            return float("inf")
        return float(difference.max(initial=0.0))

    def mismatches(self, scenario: str, got: Mapping[str, Array], *, atol: float | None = None) -> list[str]:
        """A line for each output that is not within atol + RTOL * |expected| at every valid position.

        Without `atol`, what the case allows.
        """
        atol = self.allowed() if atol is None else atol
        found: list[str] = []
        for name, value in got.items():
            want = self.arrays[f"{scenario}/{name}"]
            if value.shape != want.shape:
                found.append(f"{scenario}/{name}: shape {list(value.shape)}, expected {list(want.shape)}")
                continue
            actual = self.valid(scenario, name, value).astype(np.float64)
            wanted = self.valid(scenario, name, want).astype(np.float64)
            difference = np.abs(actual - wanted)
            off = ~(difference <= atol + RTOL * np.abs(wanted))  # so that a NaN is off
            if off.any():
                found.append(f"{scenario}/{name}: {int(off.sum())} of {off.size} off, worst {difference.max():.3g}")
        return found
