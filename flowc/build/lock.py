"""Locks: a later build must give the same, or is refused with everything that differs.

    {"flowc_lock": 1, …the manifest, without how the build was checked}

A lock is a file of its own, `NAME.flowc.lock.json`, that lies in a repository beside the spec, whose builds do not; the
manifest of a build serves as one too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from flowc.build import manifest as manifests
from flowc.build.manifest import Manifest
from flowc.errors import CheckFailed, Diagnostic, SpecError
from flowc.outside.reading import Unreadable, read_json, reason_of

SUFFIX = ".flowc.lock.json"
MARK = "flowc_lock"
VERSION = 1

FREE = ("checks", "verify")
"""What may differ: how a build was checked does not change what it is."""

MADE = ("graphs", "data", "tokenizer", "in_place")
"""What is known only when the files are made."""


def lock_of(manifest: Manifest) -> dict[str, Any]:
    """The lock of a build. Raises CheckFailed, WeightsError when its files are not those that the build wrote."""
    manifest.check_files()
    return {MARK: VERSION, **{key: value for key, value in manifest.raw.items() if key not in FREE}}


def lock_text(lock: Mapping[str, Any]) -> str:
    """A lock as it is written."""
    return json.dumps(lock, indent=1, ensure_ascii=False) + "\n"


def read_lock(path: Path) -> dict[str, Any]:
    """What a lock, or the manifest of a build, asks of a later one. Raises SpecError `bad-manifest`."""
    if not path.name.endswith(SUFFIX):
        return dict(manifests.load(path).raw)
    try:
        raw: Any = read_json(path)
    except (OSError, Unreadable) as error:
        raise SpecError.of("bad-manifest", f"cannot read the lock {path}: {reason_of(error)}") from None
    found = cast("dict[str, Any]", raw) if isinstance(raw, dict) else {}
    version = found.pop(MARK, None)
    if version != VERSION or type(version) is not int:
        raise SpecError.of(
            "bad-manifest", f"{path} is no lock that this flowc knows: it does not say \"{MARK}\": {VERSION}",
            hint="`flowc lock out/model.onnx` writes one",
        )  # fmt: skip
    return found


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
