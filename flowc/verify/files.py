"""The files of a build: are they what the manifest and the IR say they are."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flowc.ir.graph import Value
from flowc.runtime import manifest as manifests
from flowc.runtime import session as sessions
from flowc.verify.subject import Subject

if TYPE_CHECKING:
    from flowc.verify.results import Checks

HASHED_BYTES = 2**26
"""Size up to which a build hashes its data file again; it was hashed while it was written."""


def check_files(path: Path, checks: Checks, *, whole: bool) -> None:
    """Every file of the manifest is there with its recorded hash (the data file's when `whole`, or when small)."""
    manifest = manifests.load(path)
    records = [(f"{phase} graph", record) for phase, record in manifest.graphs.items()]
    records += [("tokenizer", record) for record in manifest.tokenizer]
    if manifest.data is not None:
        records.append(("data", manifest.data))
    for what, record in records:
        file = manifest.folder / record.file
        if not file.is_file():
            checks.failed("files", "", "missing-file", f"{file} ({what}) is not there")
        elif record.bytes is not None and file.stat().st_size != record.bytes:
            size = file.stat().st_size
            checks.failed("files", "", "changed-file", f"{file} has {size} bytes; the build wrote {record.bytes}")
        elif (whole or file.stat().st_size <= HASHED_BYTES) and manifests.sha256_of(file) != record.sha256:
            checks.failed("files", "", "changed-file", f"{file} ({what}) is not the file that the build wrote")
    if not checks.problems:
        checks.passed("files", "", f"{len(records)} files")


def check_ports(subject: Subject, checks: Checks) -> None:
    """Every graph loads, and declares the inputs and outputs of the IR, in their order."""
    for phase, graph in subject.compiled.graphs.items():
        session = subject.session(phase)
        declared = {
            "input": [(v.name, v) for v in graph.inputs],
            "output": [(o.name, o.value) for o in graph.outputs],
        }
        given = {"input": sessions.inputs(session), "output": sessions.outputs(session)}
        before = len(checks.done)
        for direction, wanted in declared.items():
            ports = given[direction]
            if list(ports) != [name for name, _ in wanted]:
                message = f"the {phase} graph has the {direction}s {', '.join(ports)}, not those of its spec"
                checks.failed("ports", phase, "wrong-ports", message)
                continue
            for name, value in wanted:
                if not _fits(ports[name], value):
                    message = f"the {phase} graph has the {direction} {ports[name]}, where the spec means {value.type}"
                    checks.failed("ports", phase, "wrong-ports", message)
        if len(checks.done) == before:
            checks.passed("ports", phase, f"{len(graph.inputs)} inputs, {len(graph.outputs)} outputs")


def _fits(port: sessions.Port, value: Value) -> bool:
    """Whether a port has a value's type; names of dimensions count where the IR has a plain one."""
    if port.dtype.name != value.dtype or len(port.shape) != value.type.rank:
        return False
    return all(
        a == b or (not isinstance(a, int) and " " in str(b)) for a, b in zip(port.shape, value.shape, strict=True)
    )
