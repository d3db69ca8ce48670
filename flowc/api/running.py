"""`flowc.run`: a built model, fed text, token ids or arrays."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from flowc.api.specs import AnyPath
from flowc.errors import MissingTool, SpecError
from flowc.ir.phases import PREFILL, UNIFIED, Way
from flowc.spec.components import refuse_components

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from flowc.build.manifest import Manifest
    from flowc.runtime.bounded_tokenizer import BoundedTokenizer
    from flowc.runtime.decoder import Decoder
    from flowc.runtime.device import Device

    Array = npt.NDArray[Any]

Told = Callable[[str], object]
"""Is given the answer piece by piece: its text, or, of a prompt in ids, ids with commas between them."""


@dataclass(frozen=True, slots=True)
class Ran:
    """What a model gave: the tokens of a decoder's answer, or the outputs of one call."""

    model: str
    graph: str
    """The graph that ran; of an answer pair, unified or decode: see `flowc run --graph`."""
    outputs: Mapping[str, Array] = field(default_factory=dict[str, "Array"])
    """Of one call: every output by name, in its own dtype and shape. Empty for an answer."""
    inputs: Mapping[str, Array] = field(default_factory=dict[str, "Array"])
    """Of one call with `stages`: all that the graph was fed, by name."""
    stages: Mapping[str, Array] = field(default_factory=dict[str, "Array"])
    """Of one call with `stages`: what each stage gave, by its path, in the order in which they are computed."""
    missing: Sequence[str] = ()
    """Stages whose results the graph file does not compute, or not for every token: a pass made them part of others."""
    prompt_ids: Sequence[int] = ()
    ids: Sequence[int] = ()
    """The new tokens."""
    text: str | None = None
    """What they say; None where the prompt was given in ids."""
    stopped: str = ""
    """Why the answer ended: eos, max-tokens or context."""
    seed: int | None = None
    """Draws the same answer again; None where nothing was drawn."""
    seconds: Mapping[str, float] = field(default_factory=dict[str, float])
    """Of an answer: `open` for the graphs, `first_token` from the prompt on, `rest` for the tokens after it."""
    tokens_per_second: float | None = None
    """After the first token."""
    notes: Sequence[str] = ()
    """What a person should know: that the graphs ran on the CPU, and why."""

    def as_json(self) -> dict[str, Any]:
        """An answer as plain values."""
        names = ("model", "graph", "prompt_ids", "ids", "text", "stopped", "seed", "seconds", "tokens_per_second")
        return {name: getattr(self, name) for name in names}


def run(
    model: AnyPath,
    prompt: str | None = None,
    *,
    ids: Sequence[int] | None = None,
    inputs: Mapping[str, Array] | None = None,
    max_tokens: int = 64,
    graph: Way | None = None,
    temperature: float | None = None,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int | None = None,
    raw: bool = False,
    system: str | None = None,
    ignore_eos: bool = False,
    provider: Literal["cpu", "cuda", "auto"] | None = None,
    threads: int | None = None,
    stages: bool = False,
    told: Told | None = None,
) -> Ran:
    """Run a built model: text in, text out; or token ids, or arrays.

    A decoder answers a prompt with up to `max_tokens` tokens. An encoder, and any model with `inputs` or `stages`, runs
    once.

    Args:
        model: any graph, the manifest, or their folder.
        prompt: text, which the model's own tokenizer and chat template take.
        ids: token ids instead of text.
        inputs: arrays by the names of the graph's inputs; a mask of ones and an empty past need not be given.
        max_tokens: new tokens of an answer.
        graph: prefill and decode graphs, or one for both; by default the pair, if it was built.
        temperature: 0 takes the likeliest token, above draws; by default 0, or 1 with `top_k` or `top_p`.
        top_k: draw among so many of the likeliest tokens; 0 for all.
        top_p: draw among the likeliest that reach this probability together.
        seed: makes drawing repeatable.
        raw: the text itself, without the chat template.
        system: a system message for the chat template.
        ignore_eos: go on after the end-of-sequence token.
        provider: where graphs run; by default auto for builds for CUDA, else cpu.
        threads: by default one per physical core.
        stages: run once, and give what every stage gave.
        told: is given an answer piece by piece as it comes.

    Raises:
        SpecError: the path is no built model, or the prompt or an array does not fit it.
        CheckFailed, WeightsError: a file is missing, or is not the one that the build wrote.
        MissingTool: the provider cannot be had here.
    """
    from flowc.build import manifest as manifests

    manifest = manifests.load(Path(model))
    if prompt is not None and ids is not None:
        raise SpecError.of("usage", "a prompt and ids exclude each other")
    if prompt is None and ids is None and not inputs:
        raise SpecError.of("usage", "say what to run: a prompt, ids or inputs")
    if manifest.generates and not inputs and not stages:
        if temperature is None:
            temperature = 1.0 if top_k or top_p < 1 else 0.0
        drawing = (temperature, top_k, top_p, seed)
        return _answer(manifest, prompt, ids, max_tokens, graph, drawing, provider, threads, told,
                       raw=raw, system=system, ignore_eos=ignore_eos)  # fmt: skip
    feeds = dict(inputs or {})
    if prompt is not None or ids is not None:
        if manifest.generates and inputs:
            raise SpecError.of("usage", "with inputs a decoder's graph runs once: give input_ids among them")
        feeds["input_ids"] = _row(manifest, prompt, ids, raw=raw, system=system)
    once = _once(manifest, graph)
    return _call_inside(manifest, once, feeds) if stages else _call(manifest, once, feeds, provider, threads)


def _answer(
    manifest: Manifest, prompt: str | None, ids: Sequence[int] | None, max_tokens: int, graph: str | None,
    drawing: tuple[float, int, float, int | None], provider: str | None, threads: int | None, told: Told | None, *,
    raw: bool, system: str | None, ignore_eos: bool,
) -> Ran:  # fmt: skip
    from flowc.runtime.bounded_tokenizer import BoundedTokenizer

    # The tokenizer's process starts while what comes next is imported.
    with BoundedTokenizer(manifest) if prompt is not None else nullcontext() as tokenizer:
        from flowc.runtime.decoder import Decoder
        from flowc.runtime.generate import Statistics, check_prompt, generate
        from flowc.runtime.sampling import Sampler

        asked = list(ids or ())
        if tokenizer is not None and prompt is not None:
            reads = bool(manifest.components)  # an encoder reads a whole text, with the tokens that belong around it
            asked = tokenizer.encode(prompt) if reads else tokenizer.encode_prompt(prompt, raw=raw, system=system)
        check_prompt(asked, manifest.model)
        sampler = Sampler(*drawing)
        begun = time.perf_counter()
        device, notes = _device(manifest, provider)
        decoder = Decoder.open(manifest, mode=graph, threads=threads, device=device)
        opened = time.perf_counter() - begun
        eos, length = manifest.model.eos, manifest.model.context_length
        statistics = Statistics(len(asked))
        begin = _read(decoder, manifest, asked) if decoder.encoder is not None else asked
        answer = _Answer(tokenizer, begin, eos, told)
        for token in generate(
            decoder, begin, max_tokens=max_tokens, sampler=sampler, eos=() if ignore_eos else eos,
            context_length=length, statistics=statistics,
        ):  # fmt: skip
            answer.add(token)
        answer.finish()
    return Ran(
        model=manifest.name, graph=decoder.mode, prompt_ids=asked, ids=answer.ids,
        text=answer.text if tokenizer is not None else None, stopped=statistics.stopped,
        seed=None if sampler.greedy else sampler.seed,
        seconds={"open": opened, "first_token": statistics.first_token, "rest": statistics.rest},
        tokens_per_second=statistics.tokens_per_second, notes=notes,
    )  # fmt: skip


def _read(decoder: Decoder, manifest: Manifest, ids: list[int]) -> list[int]:
    """Let the encoder read a text; returns what the decoder begins with."""
    import numpy as np

    start = manifest.model.decoder_start
    if start is None:
        message = f"nothing says which token the decoder of '{manifest.name}' begins with"
        raise SpecError.of("unsupported-components", message, hint="`model: {decoder_start: ID}` in the spec")
    decoder.read(np.array([ids], np.int64))
    return [start]


def _device(manifest: Manifest, provider: str | None) -> tuple[Device, Sequence[str]]:
    """The device that was asked for, and, where it had to give way, why."""
    from flowc.runtime.device import CPU, device
    from flowc.targets.registry import target

    aim = target(manifest.target)
    found, why = device(provider or ("auto" if aim.provider != "cpu" else "cpu"))
    if found is CPU and manifest.dtype not in aim.on_cpu:
        message = f"onnxruntime has no kernels for these {manifest.dtype} graphs on a CPU"
        raise MissingTool.of("missing-provider", f"{message}{f', and {why}' if why else ''}", hint="--provider cuda")
    return found, (f"the graphs run on the CPU: {why}",) if why else ()


class _Answer:
    """Tokens as they come: their text with a tokenizer, else their ids."""

    def __init__(
        self, tokenizer: BoundedTokenizer | None, prompt: Sequence[int], eos: Sequence[int], told: Told | None
    ) -> None:
        self.ids: list[int] = []
        self.text = ""
        self._stream = tokenizer.stream(prompt) if tokenizer is not None else None
        self._eos, self._told = eos, told

    def add(self, token: int) -> None:
        """Take one more."""
        self.ids.append(token)
        if self._stream is None:
            self._tell(f",{token}" if len(self.ids) > 1 else str(token))
        elif token not in self._eos:
            self._tell(self._stream.push(token))

    def finish(self) -> None:
        """Tell what waited for more bytes of a character."""
        if self._stream is not None:
            self._tell(self._stream.finish())

    def _tell(self, text: str) -> None:
        self.text += text
        if text and self._told is not None:
            self._told(text)


def _row(
    manifest: Manifest, prompt: str | None, ids: Sequence[int] | None, *, raw: bool, system: str | None
) -> npt.NDArray[np.int64]:
    """The ids of one call: int64 [1, tokens]."""
    import numpy as np

    from flowc.runtime.bounded_tokenizer import BoundedTokenizer
    from flowc.runtime.generate import check_prompt

    if ids is None:
        with BoundedTokenizer(manifest) as tokenizer:
            text = prompt or ""
            decoder = manifest.generates
            ids = tokenizer.encode_prompt(text, raw=raw, system=system) if decoder else tokenizer.encode(text)
    check_prompt(ids, manifest.model)
    return np.array([ids], np.int64)


def _once(manifest: Manifest, graph: str | None) -> str:
    """The graph that runs arrays."""
    if not manifest.generates:
        return next(iter(manifest.graphs))
    if graph is not None:
        return PREFILL.name if graph == "pair" else UNIFIED.name
    return manifest.given or next(iter(manifest.graphs))


def _call(
    manifest: Manifest, graph: str, feeds: Mapping[str, Array], provider: str | None, threads: int | None
) -> Ran:  # fmt: skip
    from flowc.runtime import session as sessions

    path, (device, notes) = manifest.graph_path(graph), _device(manifest, provider)
    session = sessions.open_session(path, threads=threads, providers=device.providers, prepack=False)
    _check_mask(sessions.metadata(session).get("flowc.assume") or manifest.assume, feeds.get("attention_mask"))
    return Ran(manifest.name, graph, sessions.run_once(session, feeds), notes=notes)


def _call_inside(manifest: Manifest, graph: str, feeds: Mapping[str, Array]) -> Ran:
    from flowc.verify.rebuild import recompile, subject_of
    from flowc.verify.stage_results import stage_results

    refuse_components(manifest.name, bool(manifest.components), "yet give results of stages of")
    manifest.graph_path(graph)  # is the file the one that the build wrote?
    compiled = recompile(manifest)
    _check_mask(manifest.assume, feeds.get("attention_mask"))
    found = stage_results(subject_of(manifest, compiled), cast("Any", graph), feeds)
    return Ran(manifest.name, graph, found.outputs, inputs=found.feeds, stages=found.stages, missing=found.missing)


def _check_mask(assumed: str | None, mask: Array | None) -> None:
    """Where right padding is assumed a row of the mask is ones, then zeros, over past and new columns alike."""
    if assumed != "right-padding" or mask is None or mask.ndim != 2:
        return
    if (mask[:, 1:] > mask[:, :-1]).any():
        message = "the model was built with --assume right-padding: each row of attention_mask must be ones, then zeros"
        raise SpecError.of("assumed-padding", message, hint="build it without --assume, or pad on the right")
