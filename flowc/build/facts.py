"""What a build says about itself: the manifest's facts, and the metadata of each graph file."""

from __future__ import annotations

from typing import Any

from flowc import __version__
from flowc.build.cache import cache_form
from flowc.build.compiled import Compiled
from flowc.ir.graph import Graph


def metadata(compiled: Compiled, phase: str) -> dict[str, str]:
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
    if graph.component:
        facts["flowc.component"] = graph.component
    cache = cache_form(graph)
    if cache is not None:
        facts["flowc.cache"] = cache
    vocab = graph.facts.get("vocab_size") or spec.symbol("vocab")
    for key, value in (
        ("vocab_size", vocab),
        ("context_length", compiled.context_length),
        ("decoder_start_token_id", spec.integer("decoder_start")),
        ("eos_token_id", ",".join(map(str, compiled.ends)) or None),
    ):
        if value is not None:
            facts[key] = str(value)
    return facts


def _assumed(graph: Graph, asked: str) -> str:
    """What a graph assumes: right padding only where its cache became compact; without a past, what was asked for."""
    aligned = not any(node.op.is_compact for node in graph.nodes)
    return "none" if asked == "right-padding" and aligned and graph.phase.takes_past else asked


def model_facts(compiled: Compiled) -> dict[str, Any]:
    """What those who run a model must know: name, kind, vocabulary, context length, end tokens."""
    spec = compiled.spec
    return {
        "name": spec.name,
        "kind": compiled.kind,
        "model": {
            "vocab": spec.integer("vocab"),
            "context_length": compiled.context_length,
            "eos": compiled.ends,
            "bos": spec.symbol("bos"),
            **({"decoder_start": start} if (start := spec.integer("decoder_start")) is not None else {}),
        },
        **({"components": _components(compiled)} if compiled.spec.main.name else {}),
    }


def _components(compiled: Compiled) -> dict[str, Any]:
    """The components of a model of several: their graphs, and what they take of each other."""
    found: dict[str, Any] = {}
    for component in compiled.spec.components:
        graphs = [graph for graph in compiled.graphs.values() if graph.component == component.name]
        takes = {name: source for graph in graphs for name, source in graph.connections.items()}
        found[component.name] = {"graphs": [graph.name for graph in graphs], "takes": takes}
    return found


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
        **({"components": facts["components"]} if "components" in facts else {}),
        **({"text": text.record()} if (text := compiled.tokenizer.text) is not None else {}),
        "graphs": {},
    }
