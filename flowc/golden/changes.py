"""What a new recording of a case says otherwise than the old one, in lines for a person who has to agree to it.

spec: model.norm_eps is 1e-06, was 1e-05
prompt 1 answer: " London", was " Paris"
prompt 1 step 0: logits moved by up to 0.31, of 8.2
prompt 1 step 2: token 7, was 5 (0.002 apart when it was recorded)
prompt 1: 3 of 4 stages moved, first repeat.layers.0.llama_decoder (by 0.012)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, cast

from flowc.golden.numbers import array
from flowc.golden.verdict import spec_changes

_INNER = ("rms", "max", "projections")


def changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """The lines; none when the recordings say the same, whichever flowc made them."""
    return [
        *(f"spec: {line}" for line in spec_changes(old, new)),
        *_weights(old, new),
        *_prompts(old.get("prompts") or [], new.get("prompts") or []),
        *_outputs(old.get("outputs") or {}, new.get("outputs") or {}),
        *_stages("", old.get("stages") or {}, new.get("stages") or {}),
    ]


def _weights(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    was: list[str] = old.get("weights_sha256") or []
    now: list[str] = new.get("weights_sha256") or []
    if was != now:
        yield f"weights: sha256 {_hashes(now)}, was {_hashes(was)}"


def _hashes(found: list[str]) -> str:
    return ", ".join(f"{h[:16]}…" for h in found) or "none"


def _prompts(old: list[Any], new: list[Any]) -> Iterator[str]:
    for number, now in enumerate(new, start=1):
        name = f"prompt {number}"
        if number > len(old):
            yield f"{name}: new, {_asked(now)}"
            continue
        was = old[number - 1]
        if (was.get("text"), was["ids"]) != (now.get("text"), now["ids"]):
            yield f"{name}: {_asked(now)}, was {_asked(was)}"
            continue
        if was.get("answer") != now.get("answer") and now.get("answer") is not None:
            before = "not recorded" if was.get("answer") is None else f"was {_quoted(was['answer'])}"
            yield f"{name} answer: {_quoted(now['answer'])}, {before}"
        yield from _steps(name, was["steps"], now["steps"])
        yield from _stages(f"{name}: ", was["stages"], now["stages"])
    for number in range(len(new) + 1, len(old) + 1):
        yield f"prompt {number}: gone, was {_asked(old[number - 1])}"


def _asked(prompt: Mapping[str, Any]) -> str:
    return _quoted(prompt["text"]) if prompt.get("text") is not None else f"{len(prompt['ids'])} ids"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)


def _steps(name: str, old: list[Any], new: list[Any]) -> Iterator[str]:
    """Steps up to the first that chose another token: what follows it answers another text."""
    if len(old) != len(new):
        yield f"{name}: {len(new)} steps, was {len(old)}"
    for step, (was, now) in enumerate(zip(old, new, strict=False)):
        moved = _moved(was["top"], now["top"])
        if was["token"] != now["token"]:
            other = was["top"].get(str(now["token"]))
            behind = "not among the best" if other is None else f"{was['top'][str(was['token'])] - other:.2g} apart"
            yield f"{name} step {step}: token {now['token']}, was {was['token']} ({behind} when it was recorded)"
            left = len(new) - step - 1
            if left:
                yield f"{name}: the {left} steps after it answer another text"
            return
        if (was["top"], was.get("all")) != (now["top"], now.get("all")):
            most = max(abs(value) for value in cast("dict[str, float]", was["top"]).values())
            yield f"{name} step {step}: logits moved by up to {moved:.2g}, of {most:.3g}"


def _moved(was: Mapping[str, float], now: Mapping[str, float]) -> float:
    return max((abs(value - now[i]) for i, value in was.items() if i in now), default=float("inf"))


def _outputs(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    for name in dict.fromkeys([*old, *new]):
        if name not in old or name not in new:
            yield f"output {name}: {'new' if name in new else 'gone'}"
        elif _apart(old[name], new[name]):
            yield f"output {name}: moved by {_apart(old[name], new[name]):.2g}, of {old[name]['max']:.3g}"


def _stages(name: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[str]:
    there = [stage for stage in old if stage in new]
    moved = [stage for stage in there if _apart(old[stage], new[stage])]
    if moved:
        by = _apart(old[moved[0]], new[moved[0]])
        yield f"{name}{len(moved)} of {len(there)} stages moved, first {moved[0]} (by {by:.2g})"
    for what, found in (("gone", old.keys() - new.keys()), ("new", new.keys() - old.keys())):
        if found:
            yield f"{name}{len(found)} stages {what}: {', '.join(sorted(found)[:4])}{', …' if len(found) > 4 else ''}"


def _apart(was: Mapping[str, Any], now: Mapping[str, Any]) -> float:
    a, b = (array([side["rms"], side["max"], *side["projections"]]) for side in (was, now))
    return float("inf") if a.shape != b.shape else float(abs(a - b).max(initial=0.0))
