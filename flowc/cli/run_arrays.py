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

from flowc.build.manifest import Manifest
from flowc.cli.telling import tell
from flowc.errors import SpecError
from flowc.outside.reading import Unreadable, reason_of
from flowc.outside.writing import write_whole
from flowc.runtime import session as sessions
from flowc.runtime.device import Device
from flowc.weights.npy import read_npy

_SHOWN = 8

MARK = b"written by flowc run"
"""Comment of the archives: those may be written over."""


def run_arrays(
    manifest: Manifest,
    graph: str,
    feeds: Mapping[str, npt.NDArray[Any]],
    *,
    device: Device,
    threads: int | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Run a graph and show each output's dtype, shape and first values; `output` is an .npz for all of them.

    Raises:
        SpecError: the mask is one that the model was built not to handle, or onnxruntime refuses the arrays.
    """
    path = manifest.graph_path(graph)
    session = sessions.open_session(path, threads=threads, providers=device.providers, prepack=False)
    _check_mask(sessions.metadata(session).get("flowc.assume") or manifest.assume, feeds.get("attention_mask"))
    outputs = sessions.run_once(session, feeds)
    if output is not None:
        write_npz(output, outputs)
        tell(f"wrote {output}", err=True)
    if as_json:
        shown = {name: _facts(array) for name, array in outputs.items()}
        click.echo(json.dumps({"model": manifest.name, "graph": graph, "outputs": shown}))
        return
    for name, array in outputs.items():
        facts = _facts(array)
        values = " ".join(f"{value:.6g}" for value in facts["first"])
        tell(f"{name} {facts['dtype']}{facts['shape']}: {values}{' …' if array.size > _SHOWN else ''}")


def _check_mask(assumed: str | None, mask: npt.NDArray[Any] | None) -> None:
    """Where right padding is assumed a row of the mask is ones, then zeros, over past and new columns alike."""
    if assumed != "right-padding" or mask is None or mask.ndim != 2:
        return
    if (mask[:, 1:] > mask[:, :-1]).any():
        message = "the model was built with --assume right-padding: each row of attention_mask must be ones, then zeros"
        raise SpecError.of("assumed-padding", message, hint="build it without --assume, or pad on the right")


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
