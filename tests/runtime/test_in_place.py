"""A model whose weights were used where they lay is not run once they are others."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowc.build import manifest
from flowc.build.in_place import record_of
from flowc.errors import WeightsError
from tests.runtime.tiny import TinyLlama


def used_in_place(folder: Path) -> tuple[Path, Path]:
    """A model's path, and a weights file that its manifest says it uses in place."""
    path = TinyLlama().write(folder)
    record = manifest.load(path).path
    weights = folder / "weights.safetensors"
    weights.write_bytes(np.zeros(64, np.uint8).tobytes())
    raw: dict[str, Any] = json.loads(record.read_text(encoding="utf-8"))
    raw["in_place"] = [vars(record_of(weights))]
    record.write_text(json.dumps(raw), encoding="utf-8")
    return path, weights


def test_unchanged_weights(tmp_path: Path) -> None:
    path, _ = used_in_place(tmp_path)
    assert manifest.load(path).graph_path("decode").is_file()


@pytest.mark.parametrize("change", ["time", "size", "gone"])
def test_changed_weights(tmp_path: Path, change: str) -> None:
    path, weights = used_in_place(tmp_path)
    seen = weights.stat()
    match change:
        case "time":
            os.utime(weights, ns=(seen.st_atime_ns, seen.st_mtime_ns + 1_000_000))
        case "size":
            weights.write_bytes(bytes(65))
            os.utime(weights, ns=(seen.st_atime_ns, seen.st_mtime_ns))
        case _:
            weights.unlink()
    with pytest.raises(WeightsError) as error:
        manifest.load(path).graph_path("decode")
    assert error.value.diagnostics[0].code == ("missing-file" if change == "gone" else "changed-file")
