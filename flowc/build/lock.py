"""A manifest as a lock: a later build must give the same, or is refused with everything that differs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from flowc.errors import CheckFailed, Diagnostic

FREE = ("checks", "verify")
"""What may differ: how a build was checked does not change what it is."""

MADE = ("graphs", "data", "tokenizer", "in_place")
"""What is known only when the files are made."""


def check_lock(lock: Mapping[str, Any], manifest: Mapping[str, Any], *, whole: bool) -> None:
    """Raise CheckFailed `locked` with a line for each difference.

    Before the files are made (not `whole`) only the spec, the options and the versions are compared, so that a build
    that must be refused writes nothing.
    """
    skipped = FREE if whole else (*FREE, *MADE)
    wanted, found = (leaves({k: v for k, v in m.items() if k not in skipped}) for m in (lock, manifest))
    wrong = [
        Diagnostic("locked", f"{at} is {found.get(at, 'not there')}, the lock says {wanted.get(at, 'nothing')}")
        for at in dict.fromkeys([*wanted, *found])
        if wanted.get(at) != found.get(at) and not at.endswith("modified_ns")
    ]
    if wrong:
        raise CheckFailed(wrong)


def leaves(value: object, at: str = "") -> dict[str, str]:
    """Values of a nested structure by their path."""
    if isinstance(value, Mapping):
        entries = [(f"{at}.{k}" if at else str(k), v) for k, v in cast("Mapping[str, object]", value).items()]
    elif isinstance(value, list):
        entries = [(f"{at}[{i}]", v) for i, v in enumerate(cast("list[object]", value))]
    else:
        return {at: repr(value)}
    return {path: text for key, inner in entries for path, text in leaves(inner, key).items()}
