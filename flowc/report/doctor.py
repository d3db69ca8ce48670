"""What this machine has, and what flowc can do with it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from flowc import __version__
from flowc.targets.registry import TARGETS

NEEDED = (
    "numpy",
    "onnx",
    "onnx-ir",
    "onnxruntime",
    "onnxscript",
    "click",
    "PyYAML",
    "gguf",
    "tokenizers",
    "jinja2",
)
PARITY = ("torch", "transformers")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: whether it is as it should be, and what to do when not."""

    name: str
    found: str
    good: bool = True
    hint: str = ""


def examine(folder: Path) -> list[Finding]:
    """Look at the machine; `folder` is where builds would be written."""
    findings = [
        Finding("flowc", __version__),
        Finding("python", platform.python_version(), sys.version_info >= (3, 11), "flowc needs Python 3.11 or newer"),
        Finding("machine", f"{platform.machine()}, {os.cpu_count()} processors, {_memory()}"),
        Finding("disk", f"{shutil.disk_usage(folder).free / 1e9:.1f} GB free in {folder.name or folder}",
                os.access(folder, os.W_OK), "this folder cannot be written to"),
    ]  # fmt: skip
    findings += [_library(name, needed=True) for name in NEEDED]
    findings += [_library(name, needed=False) for name in PARITY]
    findings += _runtime()
    return findings


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9:.1f} GB memory"
    except (OSError, ValueError):
        return "memory not known"


def _library(name: str, *, needed: bool) -> Finding:
    try:
        return Finding(name, importlib.metadata.version(name))
    except importlib.metadata.PackageNotFoundError:
        if needed:
            return Finding(name, "not installed", False, f"pip install {name}")
        return Finding(name, "not installed (only `--against` a HuggingFace folder needs it: the extra `parity`)")


def _runtime() -> list[Finding]:
    """What onnxruntime offers, and for each target whether a tiny graph of its versions loads."""
    try:
        import onnxruntime as ort
    except ImportError as e:
        return [Finding("onnxruntime loads", str(e), False, "pip install onnxruntime")]
    providers: list[str] = cast("Any", ort).get_available_providers()
    findings = [Finding("execution providers", ", ".join(providers))]
    for aim in TARGETS.values():
        problem = _loads(aim.opset, aim.ir_version, contrib=aim.contrib)
        found = problem or f"opset {aim.opset}, IR {aim.ir_version}: loads and runs"
        hint = f"install onnxruntime {aim.min_onnxruntime} or newer"
        findings.append(Finding(f"target {aim.name}", found, not problem, hint))
    return findings


def _loads(opset: int, ir_version: int, *, contrib: bool) -> str:
    """Run one attention of the target's versions, or its softmax; what went wrong, or an empty text."""
    import numpy as np
    import onnx.parser
    import onnxruntime as ort

    attention = "Attention<q_num_heads = 1, kv_num_heads = 1, is_causal = 1>(q, q, q)" if opset >= 23 else "Softmax(q)"
    matmul = "com.microsoft.FusedMatMul<transB = 1>(x, w)" if contrib else "Gemm<transB = 1>(x, w)"
    text = f"""<ir_version: {ir_version}, opset_import: ["": {opset}, "com.microsoft": 1]>
    g (float[2, 4] x) => (float[2, 4] y) <float[4, 4] w = {{1,0,0,0,0,1,0,0,0,0,1,0,0,0,0,1}}, int64[1] zero = {{0}}> {{
        h = {matmul}
        q = Unsqueeze(h, zero)
        a = {attention}
        y = Squeeze(a, zero)
    }}"""
    try:
        model = onnx.parser.parse_model(text).SerializeToString()
        session: Any = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
        (result,) = session.run(None, {"x": np.eye(2, 4, dtype=np.float32)})
    except Exception as e:
        return str(e).splitlines()[0]
    return "" if np.isfinite(result).all() else "the graph ran and gave no finite numbers"
