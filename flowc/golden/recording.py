"""A case's recording as a file: written so that a person can review it, and read, though anybody may have edited it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, cast

from flowc.errors import SpecError
from flowc.golden.case import Case
from flowc.golden.numbers import known
from flowc.golden.play import Recording
from flowc.outside.reading import Unreadable, json_of, read_json

Holds = Callable[[object], bool]

WIDTH = 120
"""Columns up to which a list or a map that holds others stands on one line of a recording; numbers always do."""


def text(recording: Recording) -> str:
    """JSON in which what belongs together stands on one line, so that a diff shows what changed."""
    return "".join(_lines(recording, 0)) + "\n"


def _lines(value: Any, depth: int, before: str = "") -> Iterator[str]:
    short = json.dumps(value, ensure_ascii=False)
    named = isinstance(value, dict)
    inside = cast("Any", value).values() if named else value
    flat = not isinstance(value, (dict, list)) or not any(isinstance(v, (dict, list)) for v in inside)
    if flat or len(short) + depth + len(before) <= WIDTH:
        yield before + short
        return
    entries = [*cast("dict[str, Any]", value).items()] if named else [("", v) for v in cast("list[Any]", value)]
    yield before + ("{" if named else "[")
    for number, (key, inner) in enumerate(entries):
        yield ("," if number else "") + "\n" + " " * (depth + 1)
        yield from _lines(inner, depth + 1, f"{json.dumps(key, ensure_ascii=False)}: " if named else "")
    yield "\n" + " " * depth + ("}" if named else "]")


def load(case: Case) -> Recording:
    """The recording of a case.

    Raises:
        SpecError: there is none, it is not one, or it was made for another case.
    """
    recording = _read(case)
    held: list[Recording] = recording["prompts"] if case.prompts else []
    fits = len(held) == len(case.prompts) and all(
        len(prompt["steps"]) == asked.steps and asked.ids in ((), tuple(prompt["ids"]))
        for asked, prompt in zip(case.prompts, held, strict=True)
    )
    if not fits:
        raise _bad(case, f"{case.recording} was recorded for other prompts")
    return recording


def earlier(case: Case) -> Recording | None:
    """What was recorded of a case before it is recorded again, for whatever prompts; None where nothing was.

    Raises SpecError when the file is no recording.
    """
    try:
        return _read(case)
    except SpecError as error:
        if error.diagnostics[0].code == "missing-file":
            return None
        raise


def of_bytes(case: Case, data: bytes, name: str) -> Recording:
    """A recording of a case from elsewhere, such as a git revision. Raises SpecError when it is none."""
    try:
        return _checked(case, json_of(data), name)
    except Unreadable as error:
        raise _bad(case, f"cannot read {name}: {error}") from None


def _read(case: Case) -> Recording:
    try:
        return _checked(case, read_json(case.recording), str(case.recording))
    except FileNotFoundError:
        hint = f"flowc golden record {case.path}"
        raise SpecError.of("missing-file", f"case '{case.name}' has no recording {case.recording}", hint=hint) from None
    except Unreadable as error:
        raise _bad(case, f"cannot read {case.recording}: {error}") from None


def _bad(case: Case, message: str) -> SpecError:
    return SpecError.of("bad-recording", message, hint=f"flowc golden record --update {case.path}")


def _checked(case: Case, value: Any, name: str) -> Recording:
    if not (_decoder if case.prompts else _encoder)(value):
        raise _bad(case, f"{name} is not a recording of such a case")
    return cast("Recording", _with_numbers(value))


_SIZES = frozenset({"margin", "rms", "max"})


def _with_numbers(value: Any, key: str = "") -> Any:
    """The recording with the numbers that hexadecimal texts of earlier versions stand for."""
    if isinstance(value, dict):
        entries = cast("dict[str, Any]", value)
        if key in ("top", *_SIZES):
            return {k: known(v) for k, v in entries.items()}
        return {k: v if k == "spec" else _with_numbers(v, k) for k, v in entries.items()}
    if isinstance(value, list):
        items = cast("list[Any]", value)
        return [known(v) for v in items] if key == "projections" else [_with_numbers(v) for v in items]
    return known(value) if key in _SIZES else value


def _number(value: object) -> bool:
    """Whether a value is a finite number, as a text too."""
    return known(value) is not None


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _text(value: object) -> bool:
    return isinstance(value, str)


def _list(of: Holds, least: int = 0) -> Holds:
    return lambda value: isinstance(value, list) and len(value := cast("list[object]", value)) >= least and all(
        of(item) for item in value
    )  # fmt: skip


def _mapping(of: Holds, key: Holds = _text, least: int = 0) -> Holds:
    def holds(value: object) -> bool:
        if not isinstance(value, dict):
            return False
        entries = cast("dict[object, object]", value)
        return len(entries) >= least and all(key(k) and of(v) for k, v in entries.items())

    return holds


def _record(**fields: Holds) -> Holds:
    def holds(value: object) -> bool:
        return isinstance(value, dict) and all(of(cast("dict[str, object]", value).get(k)) for k, of in fields.items())

    return holds


def _optional(of: Holds) -> Holds:
    return lambda value: value is None or of(value)


def _id(value: object) -> bool:
    return isinstance(value, str) and value.isdecimal() and len(value) < 12


def _step(value: object) -> bool:
    fields = _record(token=_whole, margin=_number, top=_mapping(_number, _id, 1), digest=_text)
    if not fields(value):
        return False
    step = cast("Recording", value)
    return str(step["token"]) in step["top"] and (step.get("all") is None or _statistics(step["all"]))


_head = {
    "weights_sha256": _optional(_list(_text)), "spec": _optional(lambda v: isinstance(v, dict)),
    "spec_sha256": _optional(_text), "target": _optional(_text),
}  # fmt: skip
_statistics = _record(rms=_number, max=_number, projections=_list(_number))
_decoder = _record(
    prompts=_list(_record(ids=_list(_whole, 1), steps=_list(_step, 1), stages=_mapping(_statistics),
                          text=_optional(_text), answer=_optional(_text)), 1),
    **_head,
)  # fmt: skip
_encoder = _record(
    outputs=_mapping(lambda v: _statistics(v) and _record(digest=_text)(v)), stages=_mapping(_statistics), **_head
)
