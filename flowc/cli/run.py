"""`flowc run`: text or token ids through a built model."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from flowc.cli.parameters import Number
from flowc.cli.telling import tell
from flowc.cli.threads import THREADS
from flowc.errors import SpecError
from flowc.ir.phases import UNIFIED, Way
from flowc.outside.writing import claim

if TYPE_CHECKING:
    from flowc.api.running import Ran
    from flowc.build.manifest import Manifest


_LONGEST_PROMPT = 16 << 20


@dataclass(frozen=True, slots=True)
class Request:
    """What a command line of `flowc run` asks for."""

    prompt: str | None
    ids: list[int] | None
    inputs: dict[str, Path]
    max_tokens: int
    graph: Way | None
    temperature: float | None
    top_k: int
    top_p: float
    seed: int | None
    raw: bool
    system: str | None
    ignore_eos: bool
    provider: Literal["cpu", "cuda", "auto"] | None
    threads: int | None
    output: Path | None
    dump_stages: Path | None
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
    type=click.Choice(["pair", UNIFIED.name]),
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
@click.option(
    "--dump-stages",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Run once, and write what was fed and what every stage gave to an .npz file.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def run(model: Path, top_k: int | None, top_p: float | None, **options: Any) -> None:
    r"""Run a built model: text in, text out; or token ids, or arrays.

    \b
    flowc run out/model.onnx --prompt "What is the capital of France?"
    flowc run out/model.onnx --ids 1,2,3 -n 16
    flowc run out/model.onnx --prompt "Once upon a time" --raw --temperature 0.8 --top-p 0.9 --seed 7
    flowc run out/model.onnx --input pixel_values=image.npy --output features.npz
    flowc run out/model.onnx --ids 1,2,3 --dump-stages stages.npz
    """
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
    if manifest.generates and not request.inputs and request.dump_stages is None:
        if request.output is not None:
            raise click.UsageError("--output is for arrays; a decoder's tokens go to stdout")
        _generate(model, request)
    else:
        _apply(model, manifest, request)


def _generate(model: Path, request: Request) -> None:
    from flowc.api.running import run as run_model

    line = _Line(silent=request.as_json)
    with line:
        ran = run_model(
            model, _prompt_text(request), ids=request.ids, max_tokens=request.max_tokens, graph=request.graph,
            temperature=request.temperature, top_k=request.top_k, top_p=request.top_p, seed=request.seed,
            raw=request.raw, system=request.system, ignore_eos=request.ignore_eos, provider=request.provider,
            threads=request.threads, told=line.write,
        )  # fmt: skip
        line.whole = True
    _note(ran)
    if request.as_json:
        click.echo(json.dumps(ran.as_json(), ensure_ascii=False))
    click.echo(_summary(ran), err=True)


def _note(ran: Ran) -> None:
    for note in ran.notes:
        tell(f"note: {note}", err=True)


def _prompt_text(request: Request) -> str | None:
    if request.prompt != "-":
        return request.prompt
    try:
        text = sys.stdin.read(_LONGEST_PROMPT + 1)
    except UnicodeDecodeError as error:
        raise SpecError.of("bad-prompt", f"standard input is not text in {error.encoding}") from None
    if len(text) > _LONGEST_PROMPT:
        raise SpecError.of("bad-prompt", f"standard input has more than {_LONGEST_PROMPT} characters")
    return text.removesuffix("\n")  # the newline that echo adds is no part of a prompt


class _Line:
    """An answer on stdout as it comes, and the end of its line: also after part of one when something stopped it."""

    def __init__(self, *, silent: bool) -> None:
        self.whole = False
        self._begun = False
        self._silent = silent

    def __enter__(self) -> None: ...

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not BrokenPipeError and not self._silent and (self.whole or self._begun):
            sys.stdout.write("\n")
            sys.stdout.flush()

    def write(self, text: str) -> None:
        """A piece of the answer."""
        self._begun = True
        if not self._silent:
            sys.stdout.write(text)
            sys.stdout.flush()


def _summary(ran: Ran) -> str:
    from flowc.runtime.generate import STOPPED

    speed, seconds = ran.tokens_per_second, ran.seconds
    parts = [
        f"{ran.graph}: opened in {seconds['open']:.2f} s",
        f"first token {seconds['first_token']:.2f} s after a prompt of {len(ran.prompt_ids)}",
        f"{len(ran.ids)} new tokens" + (f", {speed:.1f} tokens/s" if speed else ""),
        f"stopped: {STOPPED[ran.stopped]}",
    ]
    return "; ".join(parts if ran.seed is None else [*parts, f"seed {ran.seed}"])


def _apply(model: Path, manifest: Manifest, request: Request) -> None:
    from flowc.api.running import run as run_model
    from flowc.cli.run_arrays import ours, read_array, show, write_npz

    for file in (request.output, request.dump_stages):
        if file is not None:
            claim(file, [*manifest.files, *request.inputs.values()], ours)
    inputs = {name: read_array(name, file) for name, file in request.inputs.items()}
    if manifest.generates and inputs and (request.prompt is not None or request.ids is not None):
        raise click.UsageError("with --input a decoder's graph runs once: give input_ids as an --input too")
    ran = run_model(
        model, _prompt_text(request), ids=request.ids, inputs=inputs, graph=request.graph, provider=request.provider,
        threads=request.threads, raw=request.raw, system=request.system, stages=request.dump_stages is not None,
    )  # fmt: skip
    _note(ran)
    if request.dump_stages is not None:
        write_npz(request.dump_stages, {**ran.inputs, **ran.outputs, **ran.stages})
        tell(f"wrote {request.dump_stages}: {len(ran.stages)} results of stages", err=True)
        if ran.missing:
            last = "; a build with --logits all has them for every token" if manifest.logits == "last" else ""
            tell(f"note: the {ran.graph} graph does not hold all of {', '.join(ran.missing)}{last}", err=True)
    if request.output is not None:
        write_npz(request.output, ran.outputs)
        tell(f"wrote {request.output}", err=True)
    show(ran, as_json=request.as_json)
