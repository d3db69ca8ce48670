"""Reading bytes of a file that may change or vanish while flowc runs.

A memory map of a file that shrinks kills the process (SIGBUS), so weights are read with plain reads into buffers,
and each read checks that the file is still the one whose header was parsed.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from flowc.errors import FlowError, WeightsError
from flowc.outside.reading import open_at_once, reason_of

LFS_POINTER = "version https://git-lfs.github.com/spec/v1"
"""How a pointer of Git LFS begins, which stands where the file itself was not fetched."""

_LARGEST_POINTER = 1024


def lfs_pointer(shown: str) -> WeightsError:
    """The error that a file is a pointer of Git LFS; `shown` is how the message names the file."""
    hint = "git lfs pull fetches what it stands for"
    return WeightsError.of("lfs-pointer", f"{shown} is a pointer of Git LFS, not the file itself", hint=hint)


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A regular file as it was when flowc first looked at it: its size in bytes and its identity."""

    path: Path
    size: int
    identity: tuple[int, int, int]

    @classmethod
    def open(cls, path: Path) -> SourceFile:
        """Look at a file. WeightsError `missing-file`, `unreadable-file`, `lfs-pointer`."""
        try:
            with open_at_once(path) as stream:
                status = os.fstat(stream.fileno())
                small = stat.S_ISREG(status.st_mode) and status.st_size < _LARGEST_POINTER
                pointer = small and (stream.read(len(LFS_POINTER)) or b"") == LFS_POINTER.encode()
        except (OSError, ValueError) as error:
            raise _unreadable(path, error) from None
        if not stat.S_ISREG(status.st_mode):
            raise WeightsError.of("unreadable-file", f"'{path}' is not a regular file")
        if pointer:
            raise lfs_pointer(f"'{path}'")
        return cls(path, status.st_size, _identity(status))

    def read(self, offset: int, nbytes: int) -> npt.NDArray[np.uint8]:
        """`nbytes` bytes from `offset` on, in a new buffer. Errors as `read_into`."""
        self._check_inside(offset, nbytes)  # before the buffer is allocated
        buffer = np.empty(nbytes, np.uint8)
        self.read_into(offset, buffer)
        return buffer

    def read_into(self, offset: int, out: npt.NDArray[Any]) -> None:
        """Fill a C-contiguous array with the bytes from `offset` on.

        WeightsError `truncated-weights` when the file is too short, `changed-weights` when it is no longer the
        file that was opened first, else as `open`.
        """
        self._check_inside(offset, out.nbytes)
        if out.nbytes == 0:
            return
        view = out.reshape(-1).view(np.uint8).data
        try:
            with open_at_once(self.path) as stream:
                if _identity(os.fstat(stream.fileno())) != self.identity:
                    raise self._changed()
                stream.seek(offset)
                done = 0
                while done < len(view):
                    count = stream.readinto(view[done:])
                    if not count:
                        raise self._changed()
                    done += count
        except OSError as error:
            raise _unreadable(self.path, error) from None

    def check_unchanged(self) -> None:
        """For readers of their own: WeightsError `changed-weights` when this is no longer the file opened first."""
        if SourceFile.open(self.path).identity != self.identity:
            raise self._changed()

    def _check_inside(self, offset: int, nbytes: int) -> None:
        beyond = offset + nbytes - self.size
        if beyond > 0:
            raise WeightsError.of("truncated-weights", f"'{self.path}' ends {beyond} bytes too early")

    def _changed(self) -> FlowError:
        return WeightsError.of(
            "changed-weights",
            f"'{self.path}' changed while flowc was reading it",
            hint="run again when nothing writes to the file",
        )


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return (status.st_ino, status.st_size, status.st_mtime_ns)


def _unreadable(path: Path, error: OSError | ValueError) -> FlowError:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return WeightsError.of("missing-file", f"there is no file '{path}'")
    reason = reason_of(error) if isinstance(error, OSError) else str(error)
    return WeightsError.of("unreadable-file", f"cannot read '{path}': {reason}")
