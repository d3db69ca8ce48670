"""Arrays through one graph, once: what `flowc run` does with encoders and with --input."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import click
import numpy as np
import numpy.typing as npt

from flowc.api.running import Ran
from flowc.cli.telling import tell
from flowc.errors import SpecError
from flowc.outside.reading import Unreadable, reason_of
from flowc.outside.writing import write_whole
from flowc.weights.npy import read_npy

_SHOWN = 8

MARK = b"written by flowc run"
"""Comment of the archives: those may be written over."""


def show(ran: Ran, *, as_json: bool) -> None:
    """Each output's dtype, shape and first values."""
    if as_json:
        shown = {name: _facts(array) for name, array in ran.outputs.items()}
        click.echo(json.dumps({"model": ran.model, "graph": ran.graph, "outputs": shown}))
        return
    for name, array in ran.outputs.items():
        facts = _facts(array)
        values = " ".join(f"{value:.6g}" for value in facts["first"])
        tell(f"{name} {facts['dtype']}{facts['shape']}: {values}{' …' if array.size > _SHOWN else ''}")


def _facts(array: npt.NDArray[Any]) -> dict[str, Any]:
    return {"dtype": str(array.dtype), "shape": list(array.shape), "first": array.ravel()[:_SHOWN].tolist()}


def read_array(name: str, file: Path) -> npt.NDArray[Any]:
    """The array of an .npy file.

    Raises:
        SpecError: the file cannot be read, or is not .npy (pickled objects are never loaded).
    """
    try:
        return read_npy(file)
    except (OSError, Unreadable) as error:
        raise SpecError.of("bad-input", f"cannot read input {name} from {file}: {reason_of(error)}") from None


def ours(stream: BinaryIO) -> bool:
    """Whether a file is an archive that `write_npz` wrote."""
    try:
        with zipfile.ZipFile(stream) as archive:
            return archive.comment == MARK
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return False


def write_npz(path: Path, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    """Write arrays under their names, all or nothing.

    Raises:
        FlowError: what `cannot_write` gives.
    """

    def put(stream: BinaryIO) -> None:
        with zipfile.ZipFile(stream, "w") as archive:
            archive.comment = MARK
            for name, array in arrays.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                    np.lib.format.write_array(member, array, allow_pickle=False)

    write_whole(path, put)
