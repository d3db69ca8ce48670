"""`flowc run`: text or token ids through a built model."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowc.cli.parameters import Number
from flowc.cli.telling import tell
from flowc.cli.threads import THREADS
from flowc.errors import MissingTool, SpecError
from flowc.outside.writing import claim

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from flowc.build.manifest import Manifest
    from flowc.runtime.bounded_tokenizer import BoundedTokenizer
    from flowc.runtime.device import Device
    from flowc.runtime.generate import Statistics


_LONGEST_PROMPT = 16 << 20


@dataclass(frozen=True, slots=True)
class Request:
    """What a command line of `flowc run` asks for."""

    prompt: str | None
    ids: list[int] | None
    inputs: dict[str, Path]
    max_tokens: int
    graph: str | None
    temperature: float | None
    top_k: int
    top_p: float
    seed: int | None
    raw: bool
    system: str | None
    ignore_eos: bool
    provider: str | None
    threads: int | None
    output: Path | None
    as_json: bool


def _parse_ids(_: click.Context, __: click.Parameter, text: str | None) -> list[int] | None:
    if text is None:
        return None
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise click.BadParameter(f"'{text}' is not a list of token ids such as 1,2,3") from None


def _parse_inputs(_: click.Context, __: click.Parameter, pairs: tuple[str, ...]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for pair in pairs:
        name, equals, file = pair.partition("=")
        if not (name and equals and file):
            raise click.BadParameter(f"'{pair}' is not NAME=FILE.npy")
        if name in found:
            raise click.BadParameter(f"{name} is given twice")
        found[name] = Path(file)
    return found


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--prompt", metavar="TEXT", help="Text to answer or go on from; - reads it from standard input.")
@click.option("--ids", metavar="1,2,3", callback=_parse_ids, help="Token ids instead of text; the answer is ids too.")
@click.option(
    "--input",
    "inputs",
    metavar="NAME=FILE.npy",
    multiple=True,
    callback=_parse_inputs,
    help="An input as a numpy array; runs a graph once and shows its outputs.",
)
@click.option("-n", "--max-tokens", type=click.IntRange(min=1), default=64, show_default=True, help="New tokens.")
@click.option(
    "--graph",
    type=click.Choice(["pair", "unified"]),
    help="Prefill and decode graphs, or one for both.  [pair if built]",
)
@click.option(
    "--temperature",
    type=Number(min=0),
    help="0 takes the likeliest token, above draws.  [0, or 1 with --top-k or --top-p]",
)
@click.option("--top-k", type=click.IntRange(min=1), help="Draw among the K likeliest tokens.")
@click.option(
    "--top-p",
    type=Number(min=0, max=1, min_open=True),
    help="Draw among the likeliest that reach P together.",
)
@click.option("--seed", type=click.IntRange(min=0), help="Makes drawing repeatable.  [a new one, told on stderr]")
@click.option("--raw", is_flag=True, help="The text itself, without the chat template.")
@click.option("--system", metavar="TEXT", help="A system message for the chat template.")
@click.option("--ignore-eos", is_flag=True, help="Go on after the end-of-sequence token.")
@click.option(
    "--provider",
    type=click.Choice(["cpu", "cuda", "auto"]),
    help="Where graphs run; auto takes CUDA where it can.  [auto for builds for CUDA, else cpu]",
)
@click.option("--threads", type=THREADS, help="Threads.  [one per physical core]")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write all outputs to an .npz file.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def run(model: Path, top_k: int | None, top_p: float | None, **options: Any) -> None:
    r"""Run a built model: text in, text out; or token ids, or arrays.

    \b
    flowc run out/model.onnx --prompt "What is the capital of France?"
    flowc run out/model.onnx --ids 1,2,3 -n 16
    flowc run out/model.onnx --prompt "Once upon a time" --raw --temperature 0.8 --top-p 0.9 --seed 7
    flowc run out/model.onnx --input pixel_values=image.npy --output features.npz
    """
    if options["temperature"] is None and (top_k or top_p):
        options["temperature"] = 1.0
    request = Request(top_k=top_k or 0, top_p=top_p or 1.0, **options)
    if request.prompt is not None and request.ids is not None:
        raise click.UsageError("--prompt and --ids exclude each other")
    if request.prompt is None and request.ids is None and not request.inputs:
        raise click.UsageError("say what to run: --prompt, --ids or --input")
    _run(model, request)


def _run(model: Path, request: Request) -> None:
    from flowc.build import manifest as manifests

    manifest = manifests.load(model)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal of few characters is no reason to stop
    if manifest.kind == "decoder" and not request.inputs:
        if request.output is not None:
            raise click.UsageError("--output is for arrays; a decoder's tokens go to stdout")
        _generate(manifest, request)
    else:
        _apply(manifest, request)


def _generate(manifest: Manifest, request: Request) -> None:
    from flowc.runtime.bounded_tokenizer import BoundedTokenizer

    if request.ids is not None:
        _answer(manifest, request, None)
        return
    with BoundedTokenizer(manifest) as tokenizer:  # it starts while what comes next is imported
        _answer(manifest, request, tokenizer)


def _device(request: Request, manifest: Manifest) -> Device:
    """The device that was asked for; one that had to give way says so."""
    from flowc.runtime.device import CPU, device
    from flowc.targets.registry import target

    aim = target(manifest.target)
    asked = request.provider or ("auto" if aim.provider != "cpu" else "cpu")
    found, why = device(asked)
    if found is CPU and manifest.dtype not in aim.on_cpu:
        message = f"onnxruntime has no kernels for these {manifest.dtype} graphs on a CPU"
        raise MissingTool.of("missing-provider", f"{message}{f', and {why}' if why else ''}", hint="--provider cuda")
    if why:
        tell(f"note: the graphs run on the CPU: {why}", err=True)
    return found


def _answer(manifest: Manifest, request: Request, tokenizer: BoundedTokenizer | None) -> None:
    from flowc.runtime.decoder import Decoder
    from flowc.runtime.generate import Statistics, check_prompt, generate
    from flowc.runtime.sampling import Sampler

    prompt = _prompt_ids(request, tokenizer)
    check_prompt(prompt, manifest.model)
    sampler = Sampler(request.temperature or 0.0, request.top_k, request.top_p, request.seed)
    begun = time.perf_counter()
    decoder = Decoder.open(manifest, mode=request.graph, threads=request.threads, device=_device(request, manifest))
    opened = time.perf_counter() - begun
    eos = manifest.model.eos
    statistics = Statistics(len(prompt))
    out = _Answer(tokenizer, prompt, eos, silent=request.as_json)
    with out:
        for token in generate(
            decoder,
            prompt,
            max_tokens=request.max_tokens,
            sampler=sampler,
            eos=() if request.ignore_eos else eos,
            context_length=manifest.model.context_length,
            statistics=statistics,
        ):
            out.add(token)
    seed = None if sampler.greedy else sampler.seed
    if request.as_json:
        facts: dict[str, object] = {
            "model": manifest.name,
            "graph": decoder.mode,
            "prompt_ids": prompt,
            "ids": out.ids,
            "text": out.text if tokenizer else None,
            "stopped": statistics.stopped,
            "seed": seed,
            "seconds": {"open": opened, "first_token": statistics.first_token, "rest": statistics.rest},
            "tokens_per_second": statistics.tokens_per_second,
        }
        click.echo(json.dumps(facts, ensure_ascii=False))
    click.echo(_summary(statistics, decoder.mode, opened, seed), err=True)


def _prompt_ids(request: Request, tokenizer: BoundedTokenizer | None) -> list[int]:
    if tokenizer is None:
        assert request.ids is not None
        return request.ids
    return tokenizer.encode_prompt(_prompt_text(request), raw=request.raw, system=request.system)


def _prompt_text(request: Request) -> str:
    assert request.prompt is not None
    if request.prompt != "-":
        return request.prompt
    try:
        text = sys.stdin.read(_LONGEST_PROMPT + 1)
    except UnicodeDecodeError as error:
        raise SpecError.of("bad-prompt", f"standard input is not text in {error.encoding}") from None
    if len(text) > _LONGEST_PROMPT:
        raise SpecError.of("bad-prompt", f"standard input has more than {_LONGEST_PROMPT} characters")
    return text.removesuffix("\n")  # the newline that echo adds is no part of a prompt


class _Answer:
    """Writes tokens to stdout as they come: their text with a tokenizer, else their ids, comma between them.

    As a context manager it ends the line: always after a whole answer, and after part of one when something stopped it.
    """

    def __init__(
        self, tokenizer: BoundedTokenizer | None, prompt: Sequence[int], eos: Sequence[int], *, silent: bool
    ) -> None:
        self.ids: list[int] = []
        self.text = ""
        self._stream = tokenizer.stream(prompt) if tokenizer else None
        self._eos = eos
        self._silent = silent

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is BrokenPipeError:
            return
        if self._stream is not None and kind is None:
            self._write(self._stream.finish())
        if not self._silent and (kind is None or self.text):
            sys.stdout.write("\n")
            sys.stdout.flush()

    def add(self, token: int) -> None:
        """Write one token."""
        self.ids.append(token)
        if self._stream is None:
            self._write(f",{token}" if len(self.ids) > 1 else str(token))
        elif token not in self._eos:
            self._write(self._stream.push(token))

    def _write(self, text: str) -> None:
        self.text += text
        if text and not self._silent:
            sys.stdout.write(text)
            sys.stdout.flush()


def _summary(statistics: Statistics, mode: str, opened: float, seed: int | None) -> str:
    from flowc.runtime.generate import STOPPED

    speed = statistics.tokens_per_second
    parts = [
        f"{mode}: opened in {opened:.2f} s",
        f"first token {statistics.first_token:.2f} s after a prompt of {statistics.prompt_tokens}",
        f"{statistics.new_tokens} new tokens" + (f", {speed:.1f} tokens/s" if speed else ""),
        f"stopped: {STOPPED[statistics.stopped]}",
    ]
    return "; ".join(parts if seed is None else [*parts, f"seed {seed}"])


def _apply(manifest: Manifest, request: Request) -> None:
    from flowc.cli.run_arrays import ours, read_array, run_arrays

    if request.output is not None:
        claim(request.output, [*manifest.files, *request.inputs.values()], ours)
    feeds = {name: read_array(name, file) for name, file in request.inputs.items()}
    if request.prompt is not None or request.ids is not None:
        if manifest.kind == "decoder":
            raise click.UsageError("with --input a decoder's graph runs once: give input_ids as an --input too")
        feeds["input_ids"] = _encoder_ids(manifest, request)
    graph = _graph_for_arrays(manifest, request)
    device, threads = _device(request, manifest), request.threads
    run_arrays(manifest, graph, feeds, device=device, threads=threads, output=request.output, as_json=request.as_json)


def _encoder_ids(manifest: Manifest, request: Request) -> npt.NDArray[np.int64]:
    import numpy as np

    from flowc.runtime.bounded_tokenizer import BoundedTokenizer
    from flowc.runtime.generate import check_prompt

    ids = request.ids
    if ids is None:
        with BoundedTokenizer(manifest) as tokenizer:
            ids = tokenizer.encode(_prompt_text(request))
    check_prompt(ids, manifest.model)
    return np.array([ids], np.int64)


def _graph_for_arrays(manifest: Manifest, request: Request) -> str:
    if manifest.kind == "encoder":
        return next(iter(manifest.graphs))
    if request.graph is not None:
        return "prefill" if request.graph == "pair" else "unified"
    return manifest.given or next(iter(manifest.graphs))
