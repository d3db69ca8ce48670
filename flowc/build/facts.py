"""What a build says about itself: the manifest's facts, and the metadata of each graph file."""

from __future__ import annotations

from typing import Any

from flowc import __version__
from flowc.build.cache import cache_form
from flowc.build.compiled import Compiled
from flowc.ir.graph import Graph
from flowc.spec.spec import Phase


def metadata(compiled: Compiled, phase: Phase) -> dict[str, str]:
    """What a graph file says about itself (`metadata_props`)."""
    spec, request, graph = compiled.spec, compiled.request, compiled.graphs[phase]
    facts = {
        "flowc.version": __version__,
        "flowc.spec_sha256": compiled.spec_sha256,
        "flowc.target": request.target,
        "flowc.graph": phase,
        "flowc.assume": _assumed(graph, request.options.assume),
        "flowc.dtype": request.dtype,
        "flowc.min_onnxruntime": compiled.target.min_onnxruntime,
    }
    cache = cache_form(graph)
    if cache is not None:
        facts["flowc.cache"] = cache
    vocab = graph.facts.get("vocab_size") or spec.symbol("vocab")
    for key, value in (
        ("vocab_size", vocab),
        ("context_length", compiled.context_length),
        ("eos_token_id", ",".join(map(str, compiled.ends)) or None),
    ):
        if value is not None:
            facts[key] = str(value)
    return facts


def _assumed(graph: Graph, asked: str) -> str:
    """What a graph assumes: right padding only where its cache became compact; without a past, what was asked for."""
    aligned = not any(node.op.is_compact for node in graph.nodes)
    return "none" if asked == "right-padding" and aligned and graph.phase in ("decode", "unified") else asked


def model_facts(compiled: Compiled) -> dict[str, Any]:
    """What those who run a model must know: name, kind, vocabulary, context length, end tokens."""
    spec = compiled.spec
    return {
        "name": spec.name,
        "kind": "encoder" if "encode" in compiled.graphs else "decoder",
        "model": {
            "vocab": spec.integer("vocab"),
            "context_length": compiled.context_length,
            "eos": compiled.ends,
            "bos": spec.symbol("bos"),
        },
    }


def manifest_facts(compiled: Compiled, verify: str) -> dict[str, Any]:
    """The manifest as far as no file needs to be made for it; `verify` is how the build will be checked."""
    from importlib.metadata import version

    request, facts = compiled.request, model_facts(compiled)
    return {
        "flowc": __version__,
        "name": facts["name"],
        "kind": facts["kind"],
        "target": request.target,
        "assume": None if request.options.assume == "none" else request.options.assume,
        "logits": request.options.logits,
        "context": request.options.context,
        "cache": request.options.cache,
        "dtype": request.dtype,
        **({"islands": list(request.islands)} if request.islands else {}),
        "skip_passes": list(request.skip_passes),
        "shard_bytes": request.shard_bytes,
        "passes": sorted({name for audits in compiled.audits.values() for name in audits}),
        "verify": verify,
        "spec_sha256": compiled.spec_sha256,
        "spec": compiled.resolved_spec,
        "versions": {name: version(name) for name in ("numpy", "onnx", "onnx-ir")},
        "min_onnxruntime": compiled.target.min_onnxruntime,
        "tensors": {name: "x".join(map(str, used.shape)) for name, used in compiled.usage.tensors.items()},
        "model": facts["model"],
        **({"text": text.record()} if (text := compiled.tokenizer.text) is not None else {}),
        "graphs": {},
    }
