"""Reads a case's recording, which anybody may have edited."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from flowc.errors import SpecError
from flowc.golden.case import Case
from flowc.golden.play import Recording
from flowc.outside.reading import Unreadable, read_json

Holds = Callable[[object], bool]


def load(case: Case) -> Recording:
    """The recording of a case.

    Raises:
        SpecError: there is none, it is not one, or it was made for another case.
    """
    hint = f"flowc golden record {case.path}"
    try:
        value: Any = read_json(case.recording)
    except FileNotFoundError:
        raise SpecError.of("missing-file", f"case '{case.name}' has no recording {case.recording}", hint=hint) from None
    except Unreadable as error:
        raise SpecError.of("bad-recording", f"cannot read {case.recording}: {error}", hint=hint) from None
    if not (_decoder if case.prompts else _encoder)(value):
        raise SpecError.of("bad-recording", f"{case.recording} is not a recording of such a case", hint=hint)
    recording = cast("Recording", value)
    held: list[Recording] = recording["prompts"] if case.prompts else []
    fits = len(held) == len(case.prompts) and all(
        len(prompt["steps"]) == asked.steps and asked.ids in ((), tuple(prompt["ids"]))
        for asked, prompt in zip(case.prompts, held, strict=True)
    )
    if not fits:
        raise SpecError.of("bad-recording", f"{case.recording} was recorded for other prompts", hint=hint)
    return recording


def _hex(value: object) -> bool:
    """Whether a value is a float as text."""
    try:
        float.fromhex(cast("str", value))
    except (TypeError, ValueError, OverflowError):
        return False
    return True


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


def _id(value: object) -> bool:
    return isinstance(value, str) and value.isdecimal() and len(value) < 12


def _step(value: object) -> bool:
    fields = _record(token=_whole, margin=_hex, top=_mapping(_hex, _id, 1), digest=_text)
    if not fields(value):
        return False
    step = cast("Recording", value)
    return str(step["token"]) in step["top"] and (step.get("all") is None or _statistics(step["all"]))


def _hashes(value: object) -> bool:
    return value is None or _list(_text)(value)


_statistics = _record(rms=_hex, max=_hex, projections=_list(_hex))
_decoder = _record(
    prompts=_list(_record(ids=_list(_whole, 1), steps=_list(_step, 1), stages=_mapping(_statistics)), 1),
    weights_sha256=_hashes,
)
_encoder = _record(
    outputs=_mapping(lambda v: _statistics(v) and _record(digest=_text)(v)), stages=_mapping(_statistics),
    weights_sha256=_hashes,
)  # fmt: skip
