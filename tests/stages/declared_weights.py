"""The lines in which a stage kind declares its weights, read: which tensors a stage of given fields should take."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, cast

from flowc.frontend.stage import Stage
from flowc.stages.blocks.decoder import bias_name

_LINE = re.compile(
    r"(?P<names>[^:]+): (?:of the shapes that the text declares|\[(?P<sizes>[^\]]*)\])"
    r"(?: (?P<when>without|with) (?P<fields>`[^`]+`(?:(?: and|, else) `[^`]+`)*))?"
    r"(?:, rows of [a-z, ]+?)?"
    r"(?P<bias>, and its bias(?: (?P<bias_when>without|with) (?P<bias_fields>`[^`]+`(?:, else `[^`]+`)*))?)?"
)
Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """A tensor that a stage should take."""

    line: str
    name: str
    """`*` in it is any number."""
    sizes: tuple[str, ...] | None

    def is_(self, name: str) -> bool:
        """Whether a tensor is this one; a LayerNorm's old names are understood."""
        current = re.sub(r"\.beta$", ".bias", re.sub(r"\.gamma$", ".weight", name))
        pattern = re.escape(self.name).replace(r"\*", r"\d+")
        return any(re.fullmatch(pattern, n) for n in (name, current))


def wanted(stage: Stage, embedding: str | None) -> list[Wanted]:
    """What the lines of a stage's kind say for its fields."""
    values: dict[str, Any] = {a.name: getattr(stage, a.name) for a in stage.attributes()}
    found: list[Wanted] = []
    for line in stage.weights:
        said = _LINE.fullmatch(line)
        assert said, f"not a declaration of a weight: {line}"
        if not _holds(said["when"], said["fields"], values):
            continue
        sizes = tuple(said["sizes"].split(", ")) if said["sizes"] is not None else None
        biased = said["bias"] is not None and _holds(said["bias_when"], said["bias_fields"], values)
        for name in _names(said["names"], {**values, "embedding": embedding}):
            found.append(Wanted(line, name, sizes))
            if biased and sizes is not None:
                found.append(Wanted(line, bias_name(name), sizes[:1]))
    return found


def _holds(when: str | None, named: str | None, values: Mapping[str, Any]) -> bool:
    """Whether a condition holds; of fields joined by `else` the first that is given decides."""
    if when is None or named is None:
        return True
    return _true(named, values) == (when == "with")


def _true(named: str, values: Mapping[str, Any]) -> bool:
    if " and " in named:
        return all(_true(part, values) for part in named.split(" and "))
    for text in re.findall("`([^`]+)`", named):
        name, colon, value = text.partition(": ")
        if colon:
            return str(values[name]) == value
        if values[name] is not None:
            return bool(values[name])
    return False


def _names(text: str, values: Mapping[str, Any]) -> Iterator[str]:
    """All names that a list of templates stands for; none for a field that is not given."""
    for choice in re.split(r", (?!else )(?![^{]*\})", text):
        for template in choice.split(", else "):
            if names := list(_filled(template, values)):
                yield from names
                break


def _filled(template: str, values: Mapping[str, Any]) -> Iterator[str]:
    parts: list[list[str]] = []
    for part in re.split(r"(\{[^}]*\})", template):
        inner = part[1:-1]
        if not part.startswith("{"):
            parts.append([part])
        elif "," in inner:
            parts.append(inner.split(","))
        else:
            given = values[inner]
            several = cast("dict[str, str]", given).values() if isinstance(given, dict) else [given]
            parts.append([name for name in several if name is not None])
    return ("".join(chosen) for chosen in product(*parts))


def misfits(stage: Stage, wanted: list[Wanted], took: Mapping[str, Shape], width: object) -> Iterator[str]:
    """How what a stage took differs from what its declaration says; `width` is what it may call `hidden`."""
    fields = {"hidden": width} | {a.name: getattr(stage, a.name) for a in stage.attributes()}
    known: dict[str, Any] = {name: value for name, value in fields.items() if isinstance(value, int)}
    pairs = [(w, name) for w in wanted for name in took if w.is_(name)]
    for want, name in pairs:
        for size, actual in zip(want.sizes or (), took[name], strict=False):
            if size.isidentifier():
                known.setdefault(size, actual)
    for name in took:
        if not any(name == found for _, found in pairs):
            yield f"it takes '{name}', which is not declared"
    for want in wanted:
        names = [name for found, name in pairs if found is want]
        if not names:
            yield f"it does not take '{want.name}', declared by: {want.line}"
        for name in names:
            if want.sizes is not None and not _fits(want.sizes, took[name], known):
                yield f"it takes '{name}' as {list(took[name])}, declared by: {want.line}"


def _fits(sizes: tuple[str, ...], shape: Shape, known: Mapping[str, Any]) -> bool:
    if len(sizes) != len(shape):
        return False
    for size, actual in zip(sizes, shape, strict=True):
        if set(re.findall("[a-z_]+", size)) <= known.keys() and eval(size, {}, dict(known)) != actual:
            return False
    return True
