"""Hashes of large files, remembered in the user's cache folder: a file that has not changed is not read again.

    $FLOWC_CACHE/hashes/<digest of the path>.json        {"status": [device, inode, size, mtime, ctime], "sha256": "…"}

The folder is `~/.cache/flowc` where FLOWC_CACHE is not set. A record holds for a file of the same device, inode, size
and times; the kernel moves the time of change (ctime) with every write, and no program sets it. Where the folder cannot
be written, files are hashed each time.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from pathlib import Path
from typing import Any

from flowc.errors import FlowError
from flowc.outside.reading import Unreadable, read_json
from flowc.outside.writing import write_whole

SMALL = 1 << 20
"""Bytes up to which hashing costs less than looking up."""

SETTLED = 50_000_000
"""Nanoseconds after which a later write gets another time than the last one, whatever the file system's clock."""

known: dict[tuple[int, ...], str] = {}
"""Hashes that this process has seen, by status."""


def cache_folder() -> Path:
    """Where flowc keeps what it can make again. Raises RuntimeError for a user without a home."""
    named = os.environ.get("FLOWC_CACHE")
    return Path(named) if named else Path.home() / ".cache" / "flowc"


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file, read in pieces. Raises OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def remembered_sha256(path: Path) -> str:
    """Hex sha256 of a file; of a large one, what was found when it was last read whole. Raises OSError."""
    status = status_of(path)
    if status[2] <= SMALL:
        return sha256_of(path)
    found = known.get(status) or _recorded(path, status)
    if found is None:
        found = sha256_of(path)
        if status == status_of(path) and time.time_ns() - status[4] > SETTLED:
            _record(path, status, found)
    known[status] = found
    return found


def remember(path: Path, sha256: str) -> None:
    """Note the hash of a large file that was taken while it was written."""
    with contextlib.suppress(OSError):
        status = status_of(path)
        if status[2] > SMALL:
            _record(path, status, sha256)


def told_sha256(path: Path) -> str | None:
    """Hex sha256 of a file where it is cheap: of a small one, or remembered of a large one. Raises OSError."""
    status = status_of(path)
    return sha256_of(path) if status[2] <= SMALL else known.get(status) or _recorded(path, status)


def status_of(path: Path) -> tuple[int, ...]:
    """Device, inode, size, and the times of writing and of change in nanoseconds. Raises OSError."""
    status = path.stat()
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _place(path: Path) -> Path:
    digest = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()
    return cache_folder() / "hashes" / f"{digest[:32]}.json"


def _recorded(path: Path, status: tuple[int, ...]) -> str | None:
    try:
        record: Any = read_json(_place(path), 4096)
        found: object = record["sha256"] if record["status"] == list(status) else None
    except (OSError, Unreadable, RuntimeError, LookupError, TypeError):
        return None
    return found if isinstance(found, str) else None


def _record(path: Path, status: tuple[int, ...], sha256: str) -> None:
    with contextlib.suppress(OSError, RuntimeError, FlowError):  # no home, a full disk: it is hashed again next time
        write_whole(_place(path), json.dumps({"status": status, "sha256": sha256}) + "\n")
