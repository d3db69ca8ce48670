"""Plays a case through a built model and notes what it gives, in the form that is recorded.

What a person reads in a recording stands in it as text and as decimals: the spec, the answers, the best tokens.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flowc import __version__
from flowc.build.compiled import Compiled
from flowc.build.manifest import Manifest
from flowc.build.remembered import sha256_of
from flowc.errors import CheckFailed, SpecError
from flowc.golden.case import Case, Prompt
from flowc.golden.numbers import logit, statistic
from flowc.ir.phases import starting, without_cache
from flowc.runtime.decoder import Decoder, last_logits
from flowc.spec.components import refuse_components
from flowc.verify.built_model import BuiltModel
from flowc.verify.inputs import Call
from flowc.verify.locate import names_in_file
from flowc.verify.quick import ragged

Array = np.ndarray[Any, np.dtype[Any]]
Recording = dict[str, Any]

TOP = 10
PROJECTIONS = 4


def play(
    case: Case, manifest: Manifest, compiled: Compiled, forced: Mapping[str, Any] | None = None, threads: int = 1
) -> Recording:
    """What a built model gives for a case.

    `forced` is an earlier recording: its tokens are fed, whatever this model would choose, so that one tie does not
    lead the rest astray.
    """
    refuse_components(manifest.name, bool(manifest.components), "yet record goldens of")
    played: Recording = {
        "golden": 1,
        "name": case.name,
        "flowc": __version__,
        "target": manifest.target,
        "verified": manifest.raw.get("verify"),
        "spec_sha256": manifest.raw.get("spec_sha256"),
        "spec": manifest.raw.get("spec"),
        "weights_sha256": weights_hashes(compiled),
    }
    subject = BuiltModel(compiled, _files(manifest), _unread)
    if case.prompts:
        if not manifest.generates:
            raise SpecError.of("not-a-decoder", f"case '{case.name}' has prompts, but '{manifest.name}' is an encoder")
        before: list[Recording] = forced["prompts"] if forced is not None else []
        decoder = Decoder.open(manifest, threads=threads)
        played["prompts"] = [
            _prompt(prompt, manifest, decoder, subject, before[i] if i < len(before) else None)
            for i, prompt in enumerate(case.prompts)
        ]
    else:
        played["outputs"], played["stages"] = _encode(case, subject)
    return played


def _unread(name: str, rows: slice | None) -> Array:
    raise CheckFailed.of("missing-weight", f"a golden reads no weights, but '{name}' was asked for")


def _files(manifest: Manifest) -> dict[str, Path]:
    return {graph: manifest.graph_path(graph) for graph in manifest.graphs}


def weights_hashes(compiled: Compiled) -> list[str]:
    """sha256 of the files of the original weights; of the seed's description for random ones."""
    if compiled.checkpoint is None:
        return []
    files = compiled.checkpoint.files()
    if not files:
        return [hashlib.sha256(compiled.checkpoint.describe().encode()).hexdigest()]
    return [sha256_of(file) for file in files]


# Decoders


def _prompt(
    prompt: Prompt, manifest: Manifest, decoder: Decoder, subject: BuiltModel, forced: Mapping[str, Any] | None
) -> Recording:
    if forced is not None:
        ids = [int(i) for i in forced["ids"]]
    elif prompt.text is not None:
        from flowc.runtime.bounded_tokenizer import BoundedTokenizer

        with BoundedTokenizer(manifest) as tokenizer:
            ids = tokenizer.encode_prompt(prompt.text, system=prompt.system)
    else:
        ids = list(prompt.ids)
    vocab = manifest.model.vocab
    fed = [*ids, *(step["token"] for step in (forced or {}).get("steps", ()))]
    if vocab is not None and max(fed) >= vocab:
        raise SpecError.of("bad-prompt", f"the prompt has the id {max(fed)}, and the vocabulary ends at {vocab - 1}")
    feed: Array = np.array([ids], np.int64)
    steps: list[Recording] = []
    for number in range(prompt.steps):
        logits = decoder.start(feed) if number == 0 else decoder.step(feed)
        everyone: Array = np.ones_like(feed)
        step = _step(last_logits(logits, everyone)[0])
        steps.append(step)
        known = forced["steps"][number]["token"] if forced is not None and number < len(forced["steps"]) else None
        feed = np.array([[step["token"] if known is None else known]], np.int64)
    played: Recording = {"ids": ids, "steps": steps}
    if prompt.text is not None:
        answer = decoded(manifest, ids, [step["token"] for step in steps])
        system = {} if prompt.system is None else {"system": prompt.system}
        played = {"text": prompt.text, **system, "answer": answer, **played}
    return {**played, "stages": _stages(subject, np.array([ids], np.int64))}


def decoded(manifest: Manifest, ids: list[int], tokens: list[int]) -> str:
    """The text that tokens after a prompt stand for."""
    from flowc.runtime.bounded_tokenizer import BoundedTokenizer

    with BoundedTokenizer(manifest) as tokenizer:
        stream = tokenizer.stream(ids)
        return "".join([*(stream.push(token) for token in tokens), stream.finish()])


def _step(logits: Array) -> Recording:
    """The ten best tokens with their logits, how far the best is ahead, and all logits in brief."""
    order = np.lexsort((np.arange(logits.size), -logits))[:TOP]
    margin = float(logits[order[0]]) - float(logits[order[1]]) if logits.size > 1 else 0.0
    top = {str(int(i)): logit(float(logits[i])) for i in order}
    step = {"token": int(order[0]), "margin": statistic(margin), "top": top}
    return {**step, "all": _statistics(logits), "digest": _digest(logits)}


def _stages(subject: BuiltModel, ids: Array) -> Recording:
    phase = next(iter(starting(subject.graphs)), None)
    if phase is None or not any(v.name == "input_ids" for v in subject.graphs[phase].inputs):
        return {}
    drawn = {**subject.feeder.draw(1, ids.shape[1], 1), "input_ids": ids}
    return stage_statistics(subject, subject.feeder.call("prompt", phase, drawn, np.ones(ids.shape, np.int64)))


# Encoders


def _encode(case: Case, subject: BuiltModel) -> tuple[Recording, Recording]:
    phase = without_cache(subject.graphs)
    if phase is None or case.inputs is None:
        raise SpecError.of(
            "missing-graph", f"case '{case.name}' has inputs, but the model is a decoder; give `prompts`"
        )
    asked, feeder = case.inputs, subject.feeder
    columns = asked.columns if feeder.takes_tokens else 1
    mask = ragged(asked.batch, columns, "right-padding" if feeder.takes_mask else "no-padding")
    call = feeder.call(case.name, phase, feeder.draw(asked.batch, columns, asked.seed), mask)
    found = subject.run(call)
    kinds = {o.name: o.value.type for o in subject.graphs[phase].outputs}
    outputs = {n: {**_statistics(_valid(a, call.valid(kinds[n]))), "digest": _digest(_valid(a, call.valid(kinds[n])))}
               for n, a in found.items()}  # fmt: skip
    return outputs, stage_statistics(subject, call)


# Numbers in brief


def stage_statistics(subject: BuiltModel, call: Call) -> Recording:
    """Root mean square and largest magnitude of each stage's last float result that the graph file still has."""
    graph = subject.graphs[call.phase]
    last = {n.origin.stage: n.outputs[0] for n in graph.nodes if n.outputs[0].dtype == "float32"}
    names = names_in_file(graph)
    inner = subject.inner(call, {names[v] for v in last.values()})
    return {
        stage: _statistics(_valid(inner[names[value]], call.valid(value.type)))
        for stage, value in last.items()
        if names[value] in inner
    }


def _valid(array: Array, where: Array) -> Array:
    """The specified numbers of an array, flat."""
    return array[np.broadcast_to(where, array.shape)]


def _statistics(flat: Array) -> Recording:
    """rms, max, and projections on fixed signs, which any change moves."""
    wide = flat.astype(np.float64)
    if wide.size == 0:
        return {"rms": 0.0, "max": 0.0, "projections": []}
    rms = float(np.sqrt(np.mean(wide * wide)))
    return {"rms": statistic(rms), "max": statistic(np.abs(wide).max()), "projections": _projections(wide)}


def _projections(flat: Array) -> list[float]:
    signs = np.random.Generator(np.random.Philox(7)).integers(0, 2, (PROJECTIONS, flat.size), np.int8) * 2 - 1
    return [statistic(float((flat * s).sum()) / float(np.sqrt(flat.size))) for s in signs]


def _digest(array: Array) -> str:
    """The first 16 hex digits of the sha256 of the bytes."""
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]
