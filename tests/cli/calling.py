"""Runs command lines, and holds the spec that most tests of them change in one place."""

from __future__ import annotations

import contextlib
import io
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from flowc.cli import main
from tests.oracle_io import ROOT
from tests.weights.making import entry, safetensors_bytes

BASE = """\
flowc: 1
model: {hidden: 8, heads: 2, kv_heads: 1, head_dim: 4, ffn: 16, vocab: 32, norm_eps: 1e-5, context_length: 64}
weights: {random: 0}
flow:
  - embed: embed.weight
  - rope_tables: {theta: 10000}
  - repeat: {count: 2, body: [llama_decoder: "layers.{i}"]}
  - rms_norm: norm.weight
  - gather_last_token
  - lm_head: {tied: true}
"""


@dataclass(frozen=True)
class Called:
    """What a command line left behind."""

    code: int
    stdout: str
    stderr: str

    def json(self) -> dict[str, Any]:
        return json.loads(self.stdout)

    def diagnostics(self) -> list[dict[str, Any]]:
        found = self.json()
        assert found["exit_code"] == self.code
        return found["diagnostics"]


def flowc(*words: object) -> Called:
    """A command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(word) for word in words])
    assert "Traceback" not in err.getvalue()
    return Called(code, out.getvalue(), err.getvalue())


def done(*words: object) -> Called:
    """A command line that must succeed."""
    called = flowc(*words)
    assert called.code == 0, called.stdout + called.stderr
    return called


def process(*words: object, **options: Any) -> subprocess.Popen[bytes]:
    """A command line in a process of its own, with pipes."""
    command = [sys.executable, "-m", "flowc", *map(str, words)]
    environment = {k: v for k, v in os.environ.items() if k not in ("CI", "NO_COLOR", "FLOWC_DEBUG")}
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    options["env"] = {**environment, "PYTHONPATH": str(ROOT), **options.get("env", {})}
    return cast("subprocess.Popen[bytes]", subprocess.Popen(command, **options))


def save_file(tensors: Mapping[str, npt.NDArray[np.float32]], path: Path) -> None:
    """Write float32 tensors as safetensors."""
    header: dict[str, object] = {}
    data = b""
    for name, array in tensors.items():
        header[name] = entry("F32", list(array.shape), len(data), len(data) + array.nbytes)
        data += array.tobytes()
    path.write_bytes(safetensors_bytes(header, data))


def write_spec(folder: Path, text: str = BASE) -> Path:
    path = folder / "model.yaml"
    path.write_text(text, encoding="utf-8")
    return path
