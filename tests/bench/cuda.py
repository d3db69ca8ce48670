"""`make bench-cuda`: what builds for CUDA compute and how fast, on a machine with a GPU.

    python -m tests.bench.cuda families llama-1b --out RESULT.json

`families` builds every example with seeded weights, runs each graph and compares it with the meaning in numpy, and
lists the operators that ran elsewhere than on the device. A shape (`llama-1b`, …) is built, checked and timed: decode
and prefill, plain and captured, memory; beside it the graph of onnxruntime-genai's builder, turn about, where that is
installed.
Results are merged into the file, so that few minutes a call are enough.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flowc.ir.dtypes import numpy_dtype
from tests.bench import cuda_page

ROOT = Path(__file__).parents[2]
FAMILIES = sorted(p.stem for p in (ROOT / "examples").glob("*.yaml"))
SHAPES: dict[str, dict[str, Any]] = {
    "llama-1b": {"hidden": 2048, "layers": 16, "heads": 32, "kv_heads": 8, "head_dim": 64, "ffn": 8192,
                 "vocab": 128256, "tied": True},
    "llama-8b": {"hidden": 4096, "layers": 32, "heads": 32, "kv_heads": 8, "head_dim": 128, "ffn": 14336,
                 "vocab": 128256, "tied": False},
}  # fmt: skip
CONTEXT, CAPACITY = 4096, 1024
REPEATS = 40


def ort() -> Any:
    import onnxruntime

    if hasattr(onnxruntime, "preload_dlls"):
        onnxruntime.preload_dlls()
    return onnxruntime


def note(*words: Any) -> None:
    print(*words, file=sys.stderr, flush=True)


def session(file: Path, *, capture: bool = False, profile: str = "") -> Any:
    """A session on the device alone: where CUDA is missing, an error."""
    runtime = ort()
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    if profile:
        options.enable_profiling = True
        options.profile_file_prefix = profile
    provider = {"enable_cuda_graph": "1" if capture else "0", "use_tf32": "0"}
    made = runtime.InferenceSession(str(file), options, providers=[("CUDAExecutionProvider", provider)])
    if made.get_providers()[0] != "CUDAExecutionProvider":
        raise SystemExit("no CUDA device: the provider did not load")
    return made


# Every family


def families(out: dict[str, Any], names: list[str]) -> None:
    for name in names:
        for dtype in ("float16", "bfloat16", "float32"):
            for assume in ("none", "right-padding"):
                key = f"{name} {dtype} {assume}"
                try:
                    found = family(name, dtype, assume)
                except Exception as error:
                    found = {"failed": f"{type(error).__name__}: {str(error)[:400]}"}
                note(key, json.dumps(found)[:600])
                out.setdefault("families", {})[key] = found


def family(name: str, dtype: str, assume: Any) -> dict[str, Any]:
    from flowc.build.compiled import Request
    from flowc.compile import build, compile_file
    from flowc.frontend.state import Options
    from flowc.ir.interpret import interpret
    from tests.passes.making import random_feeds

    spec = ROOT / "examples" / f"{name}.yaml"
    compiled = compile_file(spec, Request(target="ort-cuda", dtype=dtype, options=Options(assume)))
    single = compile_file(spec, Request(target="portable"))
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        build(compiled, Path(folder) / "m.onnx", verify="off")
        for phase, graph in compiled.graphs.items():
            file = Path(folder) / ("m.onnx" if phase in ("unified", "encode") else f"m.{phase}.onnx")
            rows = {"batch_size": 1} if assume == "right-padding" and phase == "unified" else {}
            try:
                sizes = {"height": 28, "width": 28, "image_sequence_length": 6, "text_sequence_length": 5, **rows}
                sizes["text_sequence_length + image_sequence_length"] = 11
                feeds = random_feeds(graph, padding="left" if assume == "none" else "none", sizes=sizes)
            except KeyError as error:
                result[phase] = {"skipped": str(error)}
                continue
            types = {v.name: v.dtype for v in graph.inputs}
            wide = {n: a.astype(np.float16).astype(np.float32) if a.dtype.kind == "f" else a for n, a in feeds.items()}
            assert single.checkpoint is not None
            want = interpret(single.expanded[phase], wide, single.checkpoint.read)
            made = session(file, profile=str(Path(folder) / "p"))
            found = run_once(made, wide, types)
            events = json.loads(Path(made.end_profiling()).read_text())
            off = Counter(
                e["args"]["op_name"]
                for e in events
                if e.get("cat") == "Node"
                and "provider" in e.get("args", {})
                and e["name"].endswith("_kernel_time")
                and e["args"]["provider"] != "CUDAExecutionProvider"
            )
            copies = sum(
                n
                for op, n in Counter(
                    e["args"]["op_name"]
                    for e in events
                    if e.get("cat") == "Node" and e["name"].endswith("_kernel_time")
                ).items()
                if op.startswith("Memcpy")
            )
            typed = {n: a.astype(numpy_dtype(types[n])) for n, a in wide.items()}
            meant = interpret(graph, typed, single.checkpoint.read)
            shown = [n for n in want if n in found and not n.startswith("present")]
            result[phase] = {
                "error": {n: _apart(found[n], want[n]) for n in shown},
                "beside its kernels' meanings": {n: _apart(found[n], meant[n]) for n in shown},
                "off device": dict(off), "copies": copies,
            }  # fmt: skip
    return result


def _apart(found: Any, wanted: Any) -> float:
    """The largest difference as a share of the largest number."""
    wanted = wanted.astype(np.float64)
    return float(f"{np.abs(found.astype(np.float64) - wanted).max() / np.abs(wanted).max():.2g}")


def run_once(made: Any, feeds: Mapping[str, Any], types: Mapping[str, str]) -> dict[str, Any]:
    import ml_dtypes

    runtime = ort()
    binding = made.io_binding()
    for port in made.get_inputs():
        array = feeds[port.name]
        if types[port.name] == "bfloat16":
            raw = array.astype(ml_dtypes.bfloat16).view(np.uint16)
            value = runtime.OrtValue.ortvalue_from_numpy_with_onnx_type(raw, 16)
            binding.bind_ortvalue_input(port.name, value)
        else:
            binding.bind_cpu_input(port.name, np.ascontiguousarray(array.astype(types[port.name])))
    for port in made.get_outputs():
        binding.bind_output(port.name, "cpu")
    made.run_with_iobinding(binding)
    values = zip([p.name for p in made.get_outputs()], binding.get_outputs(), strict=True)
    return {n: v.numpy() for n, v in values if "bfloat16" not in v.data_type()}


# Shapes


def spec_of(shape: Mapping[str, Any]) -> str:
    head = "tied: true" if shape["tied"] else "weight: lm_head.weight"
    facts = ", ".join(f"{k}: {v}" for k, v in shape.items() if k != "tied")
    return f"""flowc: 1
name: bench
kind: decoder
model: {{{facts}, norm_eps: 1e-5, context_length: {CONTEXT}, eos: 2}}
weights: {{random: 0}}
flow:
  - embed: model.embed_tokens.weight
  - rope_tables: {{theta: 500000, head_dim: $head_dim}}
  - repeat:
      name: layers
      count: $layers
      body: [llama_decoder: 'model.layers.{{i}}']
  - rms_norm: model.norm.weight
  - gather_last_token
  - lm_head: {{{head}}}
"""


KINDS = {"tensor(float)": 1, "tensor(float16)": 10, "tensor(bfloat16)": 16}


class Bound:
    """A graph whose inputs and outputs lie at fixed addresses on the device; pasts and presents in one buffer.

    `new` tokens in each of `batch` rows, the last of `used` columns; the buffer and a static mask have `CAPACITY`.
    """

    def __init__(
        self, file: Path, facts: Mapping[str, Any], batch: int, new: int, used: int, *, capture: bool, static: bool
    ) -> None:
        runtime = ort()
        self.session = session(file, capture=capture)
        self.binding = self.session.io_binding()
        self.held: dict[str, Any] = {}
        columns = CAPACITY if static else used
        for port in self.session.get_inputs():
            if port.name == "input_ids":
                value = runtime.OrtValue.ortvalue_from_numpy(np.full((batch, new), 7, np.int64), "cuda", 0)
            elif port.name == "attention_mask":
                mask = (np.arange(columns) < used).astype(np.int64)
                value = runtime.OrtValue.ortvalue_from_numpy(np.tile(mask, (batch, 1)), "cuda", 0)
            else:
                value = self._empty(port, [batch, facts["kv_heads"], CAPACITY, facts["head_dim"]])
            self.held[port.name] = value
            self.binding.bind_ortvalue_input(port.name, value)
        for port in self.session.get_outputs():
            value = self.held.get(port.name.replace("present", "past_key_values"))
            if value is None:
                tokens = port.shape[1] if isinstance(port.shape[1], int) else new
                last = (
                    [batch, tokens, port.shape[2]]
                    if port.name == "logits"
                    else [batch, port.shape[1], used, port.shape[3]]
                )
                value = self._empty(port, last)
            self.held[port.name] = value
            self.binding.bind_ortvalue_output(port.name, value)

    @staticmethod
    def _empty(port: Any, sizes: list[int]) -> Any:
        return ort().OrtValue.ortvalue_from_shape_and_type(sizes, KINDS[port.type], "cuda", 0)

    def __call__(self) -> None:
        self.session.run_with_iobinding(self.binding)


def clock(run: Callable[[], None], repeats: int = REPEATS) -> float:
    """Median milliseconds of a synchronised run."""
    for _ in range(4):
        run()
    times: list[float] = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append((time.perf_counter() - start) * 1e3)
    return round(statistics.median(times), 3)


def nvidia(query: str) -> str:
    """What nvidia-smi says of the card."""
    command = ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader,nounits"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def turns(runs: Mapping[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Median milliseconds of each, timed turn about."""
    for _ in range(4):
        for run in runs.values():
            run()
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(repeats):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append((time.perf_counter() - start) * 1e3)
    return {name: round(statistics.median(found), 3) for name, found in times.items()}


def peer(name: str, folder: Path, dtype: str) -> Path | None:
    """The graph that onnxruntime-genai's builder makes of a model of the shape; None where it is not installed."""
    if importlib.util.find_spec("onnxruntime_genai") is None or importlib.util.find_spec("torch") is None:
        return None
    source, out = folder / "hf", folder / "peer"
    script = Path(__file__).with_name("export_llama.py")
    subprocess.run([sys.executable, str(script), json.dumps(SHAPES[name]), str(CONTEXT), str(source)], check=True)
    short = {"float16": "fp16", "bfloat16": "bf16"}[dtype]
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder", "-i", str(source), "-o", str(out), "-p", short,
               "-e", "cuda", "-c", str(folder / "cache")]  # fmt: skip
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    note("peer", done.returncode, round(time.perf_counter() - start, 1), done.stderr[-300:] if done.returncode else "")
    return out / "model.onnx" if done.returncode == 0 else None


FORMS = {
    "fused": ("right-padding", "static", ()),
    "default": ("none", "static", ()),
    "default, unpacked": ("none", "static", ("fuse_projections",)),
}
"""What a build assumes, the form of its cache, and the passes that it leaves out."""

CALLS = (("decode", 1, CAPACITY // 2 + 1, "m.decode.onnx"), ("prefill", 512, 512, "m.prefill.onnx"))


def shape(out: dict[str, Any], name: str, dtypes: list[str]) -> None:
    folder = Path(tempfile.mkdtemp())
    spec = folder / "model.yaml"
    spec.write_text(spec_of(SHAPES[name]))
    results = out.setdefault("shapes", {}).setdefault(name, {})
    for dtype in dtypes:
        found: dict[str, Any] = {}
        results[dtype] = found
        files = {label: built(spec, folder / f"{dtype}-{label}", dtype, label, found) for label in FORMS}
        theirs = peer(name, folder, dtype) if dtype == "float16" else None
        for batch in (1, 8):
            for what, new, used, stem in CALLS:
                for capture in (False, True):
                    key = f"{what} B{batch} {'captured' if capture else 'plain'}"
                    graphs = {label: target / stem for label, target in files.items()}
                    if theirs is not None:
                        graphs["peer"] = theirs
                    runs: dict[str, Callable[[], None]] = {}
                    for label, file in graphs.items():
                        static = new == 1 or (label == "peer" and capture)
                        try:
                            facts = SHAPES[name]
                            runs[label] = Bound(file, facts, batch, new, used, capture=capture, static=static)
                            runs[label]()
                        except Exception as error:
                            runs.pop(label, None)
                            note(key, label, type(error).__name__, str(error)[:400])
                    found[key] = turns(runs, REPEATS if new == 1 else 15)
                    note(name, dtype, key, json.dumps(found[key]))
                    runs.clear()


def built(spec: Path, target: Path, dtype: str, label: str, found: dict[str, Any]) -> Path:
    from flowc.build.compiled import Request
    from flowc.compile import build, compile_file
    from flowc.frontend.state import Options

    assume, cache, left_out = FORMS[label]
    options = Options(assume, cache=cache)  # pyright: ignore[reportArgumentType]
    target.mkdir()
    start = time.perf_counter()
    request = Request(
        target="ort-cuda", dtype=dtype, graphs=("prefill", "decode"), options=options, skip_passes=left_out
    )
    build(compile_file(spec, request), target / "m.onnx", verify="off")
    found[f"build {label} s"] = round(time.perf_counter() - start, 1)
    return target


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("what", nargs="*")
    parser.add_argument("--out", type=Path, default=cuda_page.RESULTS)
    parser.add_argument("--page", action="store_true", help="write docs/cuda.md from the results, and run nothing")
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--dtypes", nargs="*", default=["float16", "bfloat16"])
    asked = parser.parse_args()
    if asked.page:
        cuda_page.write()
        return 0
    out: dict[str, Any] = json.loads(asked.out.read_text()) if asked.out.exists() else {}
    out["onnxruntime"] = ort().__version__
    out["device"], out["date"] = nvidia("name,driver_version"), datetime.date.today().isoformat()
    for what in asked.what:
        if what == "families":
            families(out, asked.only or FAMILIES)
        else:
            shape(out, what, asked.dtypes)
        asked.out.write_text(json.dumps(out, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
