"""The tiny BART of golden/encoder_decoders, built as a user would: the example's spec with the case's weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flowc.build.compiled import Compiled, Request
from flowc.compile import build, compile_file
from flowc.frontend.state import Options
from tests.oracle_io import ROOT, Oracle

SPEC = ROOT / "examples" / "bart.yaml"
FOLDER = ROOT / "golden" / "encoder_decoders" / "bart_base"
WEIGHTS = FOLDER / "model.safetensors"


def bart() -> Oracle:
    """What HuggingFace computes from the case."""
    return Oracle(FOLDER)


def compiled_bart(logits: Any = "last", **asked: Any) -> Compiled:
    """The example, compiled with the case's weights."""
    return compile_file(SPEC, Request(weights=WEIGHTS, options=Options(logits=logits), **asked))


def built_bart(folder: Path, logits: Any = "last", **asked: Any) -> Compiled:
    """The same, built without checks as `model.onnx` in a folder."""
    compiled = compiled_bart(logits, **asked)
    build(compiled, folder / "model.onnx", verify="off")
    return compiled
