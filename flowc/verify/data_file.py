"""The bytes of the data file against the weights that they were made of, one tensor at a time."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from flowc.build.data import Layout, pieces
from flowc.errors import CheckFailed
from flowc.ir.graph import Graph, Origin
from flowc.ir.weights.expressions import Read, Weight
from flowc.ir.weights.place import lies_in_graph, weight_name
from flowc.runtime.session import graph_file
from flowc.verify.checks import Checks
from flowc.verify.rebuild import Stored

Array = np.ndarray[Any, np.dtype[Any]]


def check_weights(checks: Checks, layout: Layout, folder: Path) -> None:
    """Every tensor of the data files is, bit by bit, what its expression gives from the original weights.

    Without the original weights this says so much of what follows from the spec alone: tables of angles, constants.
    Memory holds a piece of one tensor. Names the stage that uses a wrong one.
    """
    compiled = checks.subject.compiled
    users = _users(compiled.graphs.values())
    count = 0
    stored = list(layout.stored)
    for place, weight in stored:
        data, offset = folder / place.file, place.offset
        if compiled.checkpoint is None and any(True for _ in weight.tensors()):
            continue
        count += 1
        checks.told("checking weights", count, len(stored))
        if _lies_at(data, offset, weight, checks.subject.read):
            continue
        expected = weight.evaluate(checks.subject.read)
        try:
            found = Stored(weight, data, offset).evaluate(checks.subject.read)
        except CheckFailed as error:
            stage = users[weight.key].stage if weight.key in users else ""
            checks.fail("changed-file", "weights", "", error.diagnostics[0].message, stage=stage)
            continue
        _tell(checks, weight, found, expected, users)
    if all(check.passed for check in checks.done if check.name == "weights"):
        what = (
            "tensors"
            if compiled.checkpoint is not None
            else f"of {len(list(layout.stored))} tensors follow from the spec"
        )
        checks.passed("weights", "", f"{count} {what}, bit by bit")


def _lies_at(file: Path, offset: int, weight: Weight, read: Read) -> bool:
    """Whether a file holds the bytes of a weight at an offset."""
    with file.open("rb") as stream:
        stream.seek(offset)
        return all(
            np.array_equal(np.frombuffer(stream.read(piece.nbytes), np.uint8), piece.reshape(-1).view(np.uint8))
            for _, piece in pieces(weight, read)
        )


def _users(graphs: Any) -> dict[str, Origin]:
    """The first stage that uses each weight."""
    users: dict[str, Origin] = {}
    graph: Graph
    for graph in graphs:
        for node in graph.nodes:
            for value in node.inputs:
                if value is not None and value.weight is not None:
                    users.setdefault(value.weight.key, node.origin)
    return users


def _tell(checks: Checks, weight: Weight, found: Array, expected: Array, users: dict[str, Origin]) -> None:
    wrong = int(np.count_nonzero(found != expected))
    origin = users.get(weight.key)
    stage = f" of stage '{origin.stage}'" if origin else ""
    message = f"the weight '{weight_name(weight)}'{stage} is not what it was made of: {wrong} of {found.size} numbers"
    checks.fail("changed-weights", "weights", "", message, stage=origin.stage if origin else "")


def check_places(checks: Checks, layout: Layout) -> None:
    """Every graph reads each weight where it lies, as what it is."""
    import onnx

    compiled = checks.subject.compiled
    for phase, graph in compiled.graphs.items():
        file = checks.subject.files[phase]
        wanted = {weight_name(w): w for w in graph.weights()}
        count = 0
        try:
            initializers = graph_file(file).graph.initializer
        except CheckFailed as error:
            checks.fail("load-failed", "places", phase, error.diagnostics[0].message)
            continue
        for tensor in initializers:
            if tensor.data_location != onnx.TensorProto.EXTERNAL:
                weight = wanted.get(tensor.name)
                if weight is not None and not lies_in_graph(weight):
                    message = f"the {phase} graph holds the weight '{tensor.name}', which belongs in the data file"
                    checks.fail("wrong-place", "places", phase, message)
                continue
            entries = {e.key: e.value for e in tensor.external_data}
            weight = wanted.get(tensor.name)
            place = layout.places.get(weight.key) if weight is not None else None
            count += 1
            if weight is None or place is None:
                checks.fail(
                    "wrong-place", "places", phase, f"the {phase} graph has a weight '{tensor.name}' of its own"
                )
            elif (
                entries.get("location") != place.file
                or int(entries.get("offset", 0)) != place.offset
                or int(entries.get("length", -1)) != weight.nbytes
                or tuple(tensor.dims) != weight.shape
            ):
                message = f"the {phase} graph reads the weight '{tensor.name}' where it does not lie"
                checks.fail("wrong-place", "places", phase, message)
        if all(c.passed for c in checks.done if c.name == "places" and c.graph == phase):
            checks.passed("places", phase, f"{count} weights")
