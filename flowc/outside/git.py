"""Files as a revision of git has them, read by the git of this machine."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from flowc.errors import FlowError, MissingTool, SpecError


def blob(name: str, limit: int) -> bytes:
    """The content of REVISION:PATH, of at most `limit` bytes. Raises SpecError, MissingTool."""
    size = int(_git("cat-file", "-s", name))
    if size > limit:
        raise SpecError.of("too-large", f"{name} is larger than {limit} bytes")
    return _git("cat-file", "blob", name)


def top_folder() -> Path:
    """The top of the working tree that this process stands in. Raises SpecError, MissingTool."""
    return Path(_git("rev-parse", "--show-toplevel").decode("utf-8", "surrogateescape").rstrip("\n"))


def _git(*words: str) -> bytes:
    git = shutil.which("git")
    if git is None:
        raise MissingTool.of("missing-tool", "there is no git on this machine to read a revision with")
    done = subprocess.run([git, *words], capture_output=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise _refused(words[-1], done.stderr.decode("utf-8", "replace"))
    return done.stdout


def _refused(name: str, said: str) -> FlowError:
    reason = next(iter(said.strip().splitlines()), "git failed").removeprefix("fatal: ")
    hint = "REVISION:PATH counts from the repository's top; REVISION:./PATH from here"
    return SpecError.of("missing-file", f"git has no '{name}': {reason}", hint=hint)
