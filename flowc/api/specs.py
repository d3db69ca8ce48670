"""Specs from wherever they are: a file, values in memory, or one that was loaded before; and what is asked of them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict, Unpack

from flowc.errors import Diagnostics, SpecError
from flowc.spec.spec import Spec

if TYPE_CHECKING:
    from flowc.build.compiled import Compiled, Request
    from flowc.compile import Watch

AnyPath = str | os.PathLike[str]

SpecLike = AnyPath | Mapping[str, object] | Spec
"""A path, the values of a spec (what its YAML would hold), or a loaded one."""

IN_MEMORY = "spec.json"
"""What a spec that no file holds is called in errors, whose lines are those of its values as JSON."""


class Form(TypedDict, total=False):
    """What decides the graphs beside the spec: the options of `flowc build` and `flowc check` of the same names."""

    weights: AnyPath | None
    """Weights in place of those that the spec names."""
    graphs: Sequence[str]
    """Of unified, prefill, decode, encode; all when empty."""
    target: str
    logits: Literal["last", "all"]
    assume: Literal["none", "right-padding", "no-padding"] | None
    cache: Literal["aligned", "static", "compact"] | None
    context: int | None
    """Context length in tokens; None for the model's own."""
    dtype: Literal["float32", "float16", "bfloat16"]
    islands: Sequence[str]
    """Patterns of stage paths that compute in float32 whatever `dtype` is (--precision)."""
    skip_passes: Sequence[str]
    """Passes to leave out (--no-pass)."""


def load(spec: AnyPath | Mapping[str, object], *, folder: AnyPath | None = None) -> Spec:
    """Read a spec.

    Args:
        spec: a YAML or JSON file, or the values that such a file would hold.
        folder: where a spec in memory stands: paths in it start there. By default the current folder.

    Raises:
        SpecError: everything that is wrong outside the stages themselves; `check` judges those too.
    """
    return read(spec, None, folder)


def read(spec: SpecLike, problems: Diagnostics | None, folder: AnyPath | None = None) -> Spec:
    """The same of anything that is like a spec; `problems` as for `flowc.spec.load.load`."""
    from flowc.spec.load import build, load
    from flowc.text.source import parse

    if isinstance(spec, Spec):
        return spec
    if not isinstance(spec, Mapping):
        return load(Path(spec), problems)
    try:
        text = json.dumps(spec, indent=1, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise SpecError.of("bad-type", f"the spec holds what no YAML could: {error}") from None
    return build(parse(text, IN_MEMORY, json=True), Path(folder or Path.cwd()) / IN_MEMORY, problems)


def compiled(spec: SpecLike, request: Request, watch: Watch | None = None, *, need_weights: bool = True) -> Compiled:
    """Compile a spec. Raises FlowError with all that is wrong with the file, the spec and the weights."""
    from flowc.compile import compile_file, compile_spec

    if isinstance(spec, (str, os.PathLike)):
        return compile_file(Path(spec), request, watch, need_weights=need_weights)
    problems = Diagnostics()
    return compile_spec(read(spec, problems), request, watch, need_weights=need_weights, problems=problems)


def request_of(**form: Unpack[Form]) -> Request:
    """The request that options ask for."""
    from flowc.build.compiled import Request
    from flowc.frontend.state import Options

    options = Options(form.get("assume") or "none", form.get("logits", "last"), form.get("context"), form.get("cache"))
    weights = form.get("weights")
    return Request(
        None if weights is None else Path(weights), form.get("target", "ort-cpu"), tuple(form.get("graphs", ())),
        options, tuple(form.get("skip_passes", ())), dtype=form.get("dtype", "float32"),
        islands=tuple(form.get("islands", ())),
    )  # fmt: skip
