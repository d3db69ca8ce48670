"""A case's recording as a file: written so that a person can review it, and read, though anybody may have edited it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

from flowc.errors import SpecError
from flowc.golden.case import Case
from flowc.golden.numbers import known
from flowc.golden.play import Recording
from flowc.golden.recorded import DecoderRecording, EncoderRecording
from flowc.outside.reading import MAX_SIDE_FILE, Unreadable, read_bytes
from flowc.records.json_file import read_json_record

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
        len(prompt["steps"]) == asked.steps
        and asked.ids in ((), tuple(prompt["ids"]))
        and (asked.text, asked.system) == (prompt.get("text"), prompt.get("system"))
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
        return _checked(case, data, name)
    except Unreadable as error:
        raise _bad(case, f"cannot read {name}: {error}") from None


def _read(case: Case) -> Recording:
    try:
        return _checked(case, read_bytes(case.recording, MAX_SIDE_FILE), str(case.recording))
    except FileNotFoundError:
        hint = f"flowc golden record {case.path}"
        raise SpecError.of("missing-file", f"case '{case.name}' has no recording {case.recording}", hint=hint) from None
    except Unreadable as error:
        raise _bad(case, f"cannot read {case.recording}: {error}") from None


def _bad(case: Case, message: str) -> SpecError:
    return SpecError.of("bad-recording", message, hint=_hint(case))


def _hint(case: Case) -> str:
    return f"flowc golden record --update {case.path}"


def _checked(case: Case, data: bytes, name: str) -> Recording:
    """The recording that a file holds; raises Unreadable, SpecError."""
    try:
        if case.prompts:
            read, value = read_json_record(DecoderRecording, data, name, "bad-recording")
            _tokens_among_the_best(case, read.record(), name)
        else:
            _, value = read_json_record(EncoderRecording, data, name, "bad-recording")
    except SpecError as error:
        raise SpecError(replace(d, hint=d.hint or _hint(case)) for d in error.diagnostics) from None
    return cast("Recording", _with_numbers(value))


def _tokens_among_the_best(case: Case, recording: DecoderRecording, name: str) -> None:
    for p, prompt in enumerate(recording.prompts):
        for s, step in enumerate(prompt.steps):
            if str(step.token) not in step.top:
                raise _bad(case, f"{name}: prompts[{p}].steps[{s}].top lacks the token {step.token}")


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
