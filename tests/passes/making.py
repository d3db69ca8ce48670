"""Small specs with seeded random weights, compiled; and what their graphs give, by the interpreter and onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir
import onnxruntime

from flowc.build.compiled import Compiled, Request
from flowc.compile import compile_file
from flowc.frontend.state import Options
from flowc.ir.graph import Graph, prune
from flowc.ir.interpret import interpret
from flowc.ir.verify import verify
from flowc.passes.audit import Audit, Context, Pass
from flowc.targets.registry import target
from tests.kernel_level import lowered as lower

Array = npt.NDArray[Any]
ort: Any = onnxruntime  # ships no types
Feeds = Mapping[str, Array]

HEAD = """
flowc: 1
name: small
model: {hidden: 32, layers: 2, heads: 4, kv_heads: 2, head_dim: 16, ffn: 48, vocab: 61, norm_eps: 1e-5,
  context_length: 64}
weights: {random: 7}
"""
LLAMA = """
flow:
  - embed: model.embed_tokens.weight
  - rope_tables: {theta: 10000}
  - repeat: {count: $layers, body: [llama_decoder: 'model.layers.{i}']}
  - rms_norm: model.norm.weight
  - gather_last_token
  - lm_head: {tied: true}
"""


def compile_text(folder: Path, text: str, head: str = HEAD, name: str = "small", **request: Any) -> Compiled:
    """Compile a spec given as text; keywords of `Options` may stand beside those of `Request`."""
    path = folder / f"{name}.yaml"
    path.write_text(head + text, encoding="utf-8")
    options = Options(**{k: request.pop(k) for k in ("assume", "logits", "context") if k in request})
    return compile_file(path, Request(options=options, **request))


@dataclass(frozen=True, slots=True)
class Result:
    """One pass on one graph."""

    before: Graph
    after: Graph
    audit: Audit


def apply(step: Pass, graph: Graph, *, assume: str = "none", context: int | None = 64, on: str = "ort-cpu") -> Result:
    """Run one pass alone, verified as in the pipeline."""
    return apply_in(step, graph, Context(target(on), assume, context))


def apply_in(step: Pass, graph: Graph, context: Context) -> Result:
    """As `apply`, with what a build knows."""
    audit = Audit()
    after = prune(step(graph, context, audit))
    verify(after, None, step.__name__)
    return Result(graph, after, audit)


def random_feeds(
    graph: Graph, seed: int = 0, padding: str = "left", sizes: Mapping[str, int] | None = None
) -> dict[str, Array]:
    """Inputs for a graph: ids, a ragged mask, a past. The second of two rows is padded."""
    rng = np.random.default_rng(seed)
    size = {"batch_size": 2, "sequence_length": 5, "past_sequence_length": 4, **(sizes or {})}
    new = next(d for v in graph.inputs[:1] for d in v.shape[1:2])
    length = new if isinstance(new, int) else size["sequence_length"]
    past = size["past_sequence_length"] if any(v.name.startswith("past") for v in graph.inputs) else 0
    size["total_sequence_length"] = past + length
    feeds: dict[str, Array] = {}
    for value in graph.inputs:
        shape = tuple(d if isinstance(d, int) else size[d] for d in value.shape)
        if value.name == "attention_mask":
            mask = np.ones(shape, np.int64)
            if padding == "left":
                mask[-1, :2] = 0
            elif padding == "right":
                mask[-1, -2:] = 0
            elif padding == "ragged":
                mask[-1, 0] = mask[0, 1] = mask[-1, -1] = 0
            feeds[value.name] = mask
        elif value.dtype == "int64":
            feeds[value.name] = rng.integers(0, 2 if value.name == "token_type_ids" else 61, shape)
        else:
            feeds[value.name] = rng.standard_normal(shape).astype(np.float32)
    return feeds


def run(graph: Graph, feeds: Feeds, compiled: Compiled) -> dict[str, Array]:
    """What a graph means."""
    assert compiled.checkpoint is not None
    return interpret(graph, feeds, compiled.checkpoint.read)


def run_onnx(graph: Graph, feeds: Feeds, compiled: Compiled, on: str = "ort-cpu") -> dict[str, Array]:
    """What onnxruntime computes for a graph as a target lowers it."""
    assert compiled.checkpoint is not None
    lowered = lower(graph, on)
    for name, weight in lowered.weights.items():
        array = weight.evaluate(compiled.checkpoint.read)
        lowered.model.graph.initializers[name].const_value = onnx_ir.tensor(array, name=name)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = ort.InferenceSession(lowered.serialize(), options, ["CPUExecutionProvider"])
    taken = {i.name: feeds[i.name] for i in session.get_inputs()}
    names = [o.name for o in session.get_outputs()]
    return dict(zip(names, session.run(names, taken), strict=True))


def assert_close(got: Feeds, want: Feeds, mask: Array | None = None, tolerance: float = 2e-5) -> None:
    """Every result within tolerance, at positions that the mask keeps (cached columns of padding are free)."""
    assert list(got) == list(want)
    for name, array in want.items():
        assert got[name].shape == array.shape, name
        difference = np.abs(got[name] - array)
        if mask is not None and array.shape[:2] == mask.shape:
            difference = difference[mask != 0]
        if mask is not None and name.startswith("present.") and array.shape[2] == mask.shape[1]:
            difference = difference.swapaxes(1, 2)[mask != 0]
        assert np.isfinite(difference).all(), name
        assert difference.max(initial=0.0) <= tolerance, (name, difference.max())


def same_numbers(
    result: Result, compiled: Compiled, *, padding: str = "left", on: str = "ort-cpu", seed: int = 3
) -> None:
    """A pass kept the numbers: by the interpreter, and in onnxruntime."""
    feeds = random_feeds(result.before, seed, padding)
    want = run(result.before, feeds, compiled)
    mask = feeds.get("attention_mask")
    assert_close(run(result.after, feeds, compiled), want, mask)
    assert_close(run_onnx(result.after, feeds, compiled, on), want, mask)


def count(graph: Graph, op: type) -> int:
    """How many operators of a kind a graph has."""
    return sum(isinstance(node.op, op) for node in graph.nodes)
