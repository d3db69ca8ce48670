"""Small text files, written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

from flowc.errors import cannot_write


def write_whole(path: Path, text: str) -> None:
    """Write a text under a temporary name, then rename it. Raises what `cannot_write` gives."""
    try:
        if path.exists() and not path.is_file():  # /dev/stdout, a pipe: there is nothing to replace
            path.write_text(text, encoding="utf-8")
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".flowc-")
        try:
            with open(handle, "w", encoding="utf-8") as file:
                file.write(text)
            umask = os.umask(0)
            os.umask(umask)
            os.chmod(temporary, 0o666 & ~umask)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise cannot_write(path, error) from None
