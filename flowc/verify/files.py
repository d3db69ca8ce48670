"""The files of a build: are they what the manifest and the IR say they are."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowc import __version__
from flowc.build import manifest as manifests
from flowc.build.facts import metadata, model_facts
from flowc.build.files import graph_file as graph_name
from flowc.build.in_place import record_of
from flowc.build.lock import leaves
from flowc.build.manifest import Manifest
from flowc.build.manifest_keys import UsedInPlace
from flowc.build.remembered import sha256_of
from flowc.errors import CheckFailed
from flowc.ir.onnx_text.parse import element_name
from flowc.ir.phases import PHASES
from flowc.outside.foreign import foreign
from flowc.runtime.session import graph_file
from flowc.targets.registry import target
from flowc.verify.built_model import BuiltModel

if TYPE_CHECKING:
    from flowc.verify.checks import Checks

HASHED_BYTES = 2**26
"""Size up to which a build hashes its data file again; it was hashed while it was written."""


def check_files(path: Path, checks: Checks, *, whole: bool) -> None:
    """Every file of the manifest is there with its recorded hash (the data file's when `whole`, or when small)."""
    manifest = manifests.load(path)
    records = [(f"{phase} graph", record) for phase, record in manifest.graphs.items()]
    records += [("tokenizer", record) for record in manifest.tokenizer]
    records += [("data", record) for record in manifest.data]
    for what, record in records:
        file = manifest.folder / record.file
        if not file.is_file():
            checks.fail("missing-file", "files", "", f"{file} ({what}) is not there")
        elif record.bytes is not None and file.stat().st_size != record.bytes:
            size = file.stat().st_size
            checks.fail("changed-file", "files", "", f"{file} has {size} bytes; the build wrote {record.bytes}")
        elif (whole or file.stat().st_size <= HASHED_BYTES) and sha256_of(file) != record.sha256:
            checks.fail("changed-file", "files", "", f"{file} ({what}) is not the file that the build wrote")
    for file in _unnamed_graphs(manifest):
        checks.fail("missing-graph", "files", "", f"{file} is there, but {manifest.path.name} names no such graph")
    for seen in manifest.in_place:
        check_used_in_place(manifest.folder / seen.file, seen, checks)
    if not checks.failures:
        checks.passed("files", "", f"{len(records)} files")


def _unnamed_graphs(manifest: Manifest) -> list[Path]:
    """Graph files of the model's name that its manifest does not have; a build leaves none of an earlier one."""
    out = Path(manifest.path.name.removesuffix(manifests.SUFFIX) + ".onnx")
    named = {record.file for record in manifest.graphs.values()}
    files = {graph_name(out, phase) for phase in PHASES} - named
    return [manifest.folder / name for name in sorted(files) if (manifest.folder / name).is_file()]


def check_used_in_place(file: Path, seen: UsedInPlace, checks: Checks) -> None:
    """A file of weights that is used where it lies is the one that was built with, as far as can be told unread."""
    if not file.is_file():
        checks.fail("missing-file", "files", "", f"{file} (weights used in place) is not there")
        return
    found = record_of(file)
    what = {
        "header_sha256": "its header differs",
        "bytes": "its size differs",
        "modified_ns": "it was written since",
    }
    changed = next((text for key, text in what.items() if getattr(found, key) != getattr(seen, key)), None)
    if changed is not None:
        message = f"{file} (weights used in place) is not as it was when the model was built: {changed}"
        checks.fail("changed-file", "files", "", message)


def check_ports(subject: BuiltModel, checks: Checks) -> None:
    """Every graph loads (or passes onnx's checker), and declares the inputs and outputs of the IR, in their order."""
    for phase, graph in subject.compiled.graphs.items():
        if subject.runs_here:
            subject.session(phase)
        else:
            check_form(subject.files[phase])
        file = graph_file(subject.files[phase]).graph
        declared = {
            "input": [(v.name, v) for v in graph.inputs],
            "output": [(o.name, o.value) for o in graph.outputs],
        }
        given = {"input": _ports(file.input), "output": _ports(file.output)}
        before = len(checks.done)
        for direction, wanted in declared.items():
            ports = given[direction]
            if list(ports) != [name for name, _ in wanted]:
                message = f"the {phase} graph has the {direction}s {', '.join(ports)}, not those of its spec"
                checks.fail("wrong-ports", "ports", phase, message)
                continue
            for name, value in wanted:
                if ports[name] != str(graph.port_type(value)):
                    meant = graph.port_type(value)
                    message = f"the {phase} graph's {direction} {name} is {ports[name]}; the spec means {meant}"
                    checks.fail("wrong-ports", "ports", phase, message)
        if len(checks.done) == before:
            checks.passed("ports", phase, f"{len(graph.inputs)} inputs, {len(graph.outputs)} outputs")


def check_form(file: Path) -> None:
    """Raise CheckFailed unless a graph file is what ONNX calls valid, operators of its own domains alone."""
    import onnx

    with foreign(lambda why: CheckFailed.of("load-failed", f"{file} is no valid ONNX file: {why}")):
        onnx.checker.check_model(str(file))


def check_facts(manifest: Manifest, checks: Checks) -> None:
    """The manifest and each graph say of the model what its spec and its options say."""
    compiled = checks.subject.compiled
    raw, wanted = manifest.raw, leaves(model_facts(compiled))
    found = leaves({key: raw.get(key) for key in model_facts(compiled)})
    for at in dict.fromkeys([*wanted, *found]):
        if wanted.get(at) != found.get(at):
            message = f"{manifest.path.name}: {at} is {found.get(at, 'not there')}; the spec means {wanted.get(at)}"
            checks.fail("wrong-facts", "facts", "", message)
    shapes = {name: "x".join(map(str, used.shape)) for name, used in compiled.usage.tensors.items()}
    recorded = raw.get("tensors", {})
    for name in dict.fromkeys([*shapes, *recorded]):
        if shapes.get(name) != recorded.get(name):
            message = f"{manifest.path.name}: the tensor {name} is {recorded.get(name, 'not there')} in it; "
            checks.fail("wrong-facts", "facts", "", f"{message}the spec means {shapes.get(name, 'no such tensor')}")
    same_version = raw.get("flowc") == __version__
    made_for = target(manifest.target)
    for phase in compiled.graphs:
        model = graph_file(checks.subject.files[phase])
        says = {p.key: p.value for p in model.metadata_props}
        means = metadata(compiled, phase)
        if same_version:  # what a target asks for may change with flowc
            says |= {"opset": _opset(model), "IR version": str(model.ir_version)}
            means |= {"opset": str(made_for.opset), "IR version": str(made_for.ir_version)}
        else:
            means |= {k: says.get(k, "") for k in ("flowc.version", "flowc.min_onnxruntime")}
        for key in sorted(means.keys() | says.keys()):
            if says.get(key) != means.get(key):
                message = f"the {phase} graph says {key} = {says.get(key)}; its spec means {means.get(key)}"
                checks.fail("wrong-facts", "facts", phase, message)
    if not any(c.name == "facts" for c in checks.done):
        checks.passed("facts", "", f"the manifest and {len(compiled.graphs)} graphs")


def _opset(model: Any) -> str:
    return ",".join(str(o.version) for o in model.opset_import if o.domain in ("", "ai.onnx"))


def _ports(values: Iterable[Any]) -> dict[str, str]:
    """Types as the file declares them; onnxruntime tells what it inferred."""
    ports: dict[str, str] = {}
    for value in values:
        kind = value.type.tensor_type
        dims = [d.dim_value if d.HasField("dim_value") else d.dim_param for d in kind.shape.dim]
        ports[value.name] = f"{element_name(kind.elem_type)}[{', '.join(map(str, dims))}]"
    return ports
