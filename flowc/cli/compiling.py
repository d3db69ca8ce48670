"""What `check` and `build` share: their options, and how they are passed on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from flowc.cli.parameters import spec_path
from flowc.errors import SpecError

Function = TypeVar("Function", bound=Callable[..., Any])


def _parse_names(_: click.Context, __: click.Parameter, text: str | None) -> tuple[str, ...]:
    if text is None:
        return ()
    names = tuple(part.strip() for part in text.split(","))
    if not all(names):
        raise click.BadParameter(f"'{text}' is not a list of names such as prefill,decode")
    return names


def _parse_islands(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    patterns: list[str] = []
    for text in given:
        pattern, equals, form = text.rpartition("=")
        if not (pattern and equals) or form != "float32":
            raise click.BadParameter(f"'{text}' is not a pattern and a form, such as 'repeat.layers.0.*=float32'")
        patterns.append(pattern)
    return tuple(patterns)


def _complete_target(_: click.Context, __: click.Parameter, begun: str) -> list[str]:
    from flowc.targets.registry import TARGETS

    return [name for name in TARGETS if name.startswith(begun)]


def _complete_pass(_: click.Context, __: click.Parameter, begun: str) -> list[str]:
    from flowc.passes.pipeline import pass_names

    return [name for name in pass_names() if name.startswith(begun)]


_FORM = (
    click.option(
        "--target",
        metavar="NAME",
        default="ort-cpu",
        shell_complete=_complete_target,
        help="ort-cpu, portable or portable-20.  [ort-cpu]",
    ),
    click.option(
        "--logits", type=click.Choice(["last", "all"]), default="last", help="Of the last token, or of all.  [last]"
    ),
    click.option(
        "--assume",
        type=click.Choice(["right-padding", "no-padding"]),
        help="Faster graphs that are right for such batches only.",
    ),
    click.option(
        "--cache",
        type=click.Choice(["aligned", "static", "compact"]),
        help="How a decoder's cache lies.  [aligned; compact with right-padding]",
    ),
    click.option(
        "--dtype",
        type=click.Choice(["float32", "float16", "bfloat16"]),
        default="float32",
        help="Of weights, and of what the target computes in.  [float32]",
    ),
    click.option(
        "--precision",
        "islands",
        metavar="STAGE=float32",
        multiple=True,
        callback=_parse_islands,
        help="Stages, by a pattern of their paths, that compute in float32; repeatable.",
    ),
    click.option(
        "--context", type=click.IntRange(min=1, max=2**31 - 1), help="Context length in tokens.  [the model's]"
    ),
    click.option(
        "--no-pass",
        "skip_passes",
        metavar="NAME",
        multiple=True,
        shell_complete=_complete_pass,
        help="Leave out a pass; repeatable.",
    ),
)
_NO_SPECS = {
    ".gguf": "a checkpoint: `flowc import {path} -o model.yaml` writes a spec of it",
    ".safetensors": "a file of weights: `flowc import FOLDER -o model.yaml` writes a spec of its folder",
    "/": "a folder: `flowc import {path} -o model.yaml` writes a spec of a checkpoint's",
}


def a_spec(path: Path) -> Path:
    """The path; raises SpecError where it is plainly no spec: weights, a folder."""
    told = _NO_SPECS.get("/" if path.is_dir() else path.suffix)
    if told is None:
        return path
    what, _, hint = told.partition(": ")
    raise SpecError.of("not-a-spec", f"{path} is no spec, but {what}", hint=hint.format(path=path))


def _spec(context: click.Context, parameter: click.Parameter, path: Path) -> Path:
    return a_spec(spec_path(context, parameter, path))


def _specs(context: click.Context, parameter: click.Parameter, paths: tuple[Path, ...]) -> tuple[Path, ...]:
    """Several; what is no spec is told of each later, with the others."""
    return paths if len(paths) > 1 else tuple(spec_path(context, parameter, path) for path in paths)


_OPTIONS = (
    click.argument("spec", metavar="MODEL.yaml", type=click.Path(path_type=Path), callback=_spec),
    click.option("--weights", type=click.Path(path_type=Path), help="Weights, instead of those that the spec names."),
    click.option(
        "--graph",
        "graphs",
        metavar="LIST",
        callback=_parse_names,
        help="Comma list of unified, prefill, decode; encode for an encoder; names of components.  [all]",
    ),
    *_FORM,
    click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout."),
)


def form_options(function: Function) -> Function:
    """Give a command the options that decide the form of the graphs of a spec."""
    for option in reversed(_FORM):
        function = option(function)
    return function


def many_specs(function: Function) -> Function:
    """Give a command the same, for several specs: `specs`, of which `-` is standard input."""
    for option in reversed(_OPTIONS[1:]):
        function = option(function)
    path = click.Path(path_type=Path, allow_dash=True)
    return click.argument("specs", metavar="MODEL.yaml...", type=path, nargs=-1, required=True, callback=_specs)(
        function
    )


def compile_options(function: Function) -> Function:
    """Give a command the argument and the options that decide a compilation."""
    for option in reversed(_OPTIONS):
        function = option(function)
    return function
