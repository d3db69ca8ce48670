"""The graph files against what this flowc lowers their spec to: byte by byte, else node by node.

Lowering is deterministic, so that a file of this flowc's version that differs was changed after the build. What no
input shows is found that way: an epsilon that is off by little, a branch that few batches take.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flowc import __version__
from flowc.build.data import Layout
from flowc.build.facts import metadata
from flowc.build.manifest import Manifest
from flowc.errors import CheckFailed
from flowc.runtime.session import graph_file
from flowc.verify.checks import Checks

SOURCE = "flowc.source"
"""Where a stage stands in the file that was built; the manifest's spec has other places."""


def check_lowered(manifest: Manifest, checks: Checks, layout: Layout | None) -> None:
    """Every graph file is what its graph is lowered to, where the manifest is of this version of flowc.

    Without a layout (weights in place, held to others) where weights lie is not compared.
    """
    import onnx

    from flowc.lowering.lower import lower

    subject = checks.subject
    built_by = manifest.raw.get("flowc")
    for phase, graph in subject.compiled.graphs.items():
        file = subject.files[phase]
        if built_by != __version__:
            why = f"the graph is not compared with its lowering: flowc {built_by} wrote it, this is {__version__}"
            checks.passed("skipped", phase, why)
            continue
        lowered = lower(graph, subject.compiled.target, metadata(subject.compiled, phase))
        wanted = lowered.serialize(layout.places if layout is not None else None)
        content = file.read_bytes()
        if content == wanted:
            checks.passed("lowered", phase, "byte by byte")
            continue
        try:
            found = graph_file(file)
        except CheckFailed:  # `places` says what is wrong with the file
            continue
        means = onnx.ModelProto.FromString(wanted)
        difference = next(_differences(found, means, placed=layout is not None), None)
        if difference is None:
            checks.passed("lowered", phase, f"{len(means.graph.node)} nodes, one by one")
            continue
        what, stage, source = difference
        place = f" of stage '{stage}'{f' ({source})' if source else ''}" if stage else ""
        message = f"{file.name} is not what its spec is lowered to: {what}{place}"
        checks.fail("changed-file", "lowered", phase, message, stage=stage)


def _differences(found: Any, means: Any, *, placed: bool) -> Iterator[tuple[str, str, str]]:
    """What differs first, the stage that it belongs to, and the stage's place."""
    for at, (node, want) in enumerate(zip(found.graph.node, means.graph.node, strict=False)):
        text = _node_difference(node, want)
        if text:
            properties = {**_properties(node), **{k: v for k, v in _properties(want).items() if k != SOURCE}}
            yield f"node {at}, {text}", properties.get("flowc.stage", ""), properties.get(SOURCE, "")
    if len(found.graph.node) != len(means.graph.node):
        yield f"it has {len(found.graph.node)} nodes, not {len(means.graph.node)}", "", ""
    for what in ("input", "output", "initializer", "value_info", "sparse_initializer"):
        ours, theirs = ({v.name: v for v in getattr(m.graph, what)} for m in (means, found))
        for name in dict.fromkeys([*ours, *theirs]):
            if name not in ours or name not in theirs:
                where = "not there" if name in ours else "one too many"
                yield f"the {what} '{name}' is {where}", "", ""
            elif _plain(theirs[name], placed=placed) != _plain(ours[name], placed=placed):
                yield f"the {what} '{name}' differs", "", ""
    for what in ("opset_import", "functions"):
        if [v.SerializeToString() for v in getattr(found, what)] != [
            v.SerializeToString() for v in getattr(means, what)
        ]:
            yield f"its {what.replace('_', ' ')} differs", "", ""


def _node_difference(node: Any, want: Any) -> str:
    name = f"{want.op_type} '{want.output[0] if want.output else want.name}'"
    for what in ("op_type", "domain", "overload"):
        if getattr(node, what) != getattr(want, what):
            return f"{name}: its {what} is {getattr(node, what)!r}"
    for what in ("input", "output"):
        if list(getattr(node, what)) != list(getattr(want, what)):
            return f"{name}: its {what}s are {', '.join(getattr(node, what))}"
    given, wanted = ({a.name: a for a in n.attribute} for n in (node, want))
    for key in dict.fromkeys([*wanted, *given]):
        if key not in given or key not in wanted:
            return f"{name}: its {key} is {'not there' if key in wanted else 'one too many'}"
        if given[key].SerializeToString(deterministic=True) != wanted[key].SerializeToString(deterministic=True):
            if given[key].HasField("g") and wanted[key].HasField("g"):
                inner = zip(given[key].g.node, wanted[key].g.node, strict=False)
                text = next((t for t in (_node_difference(a, b) for a, b in inner) if t), "")
                if not text and _plain_graph(given[key].g) == _plain_graph(wanted[key].g):
                    continue
                return f"{name}, inside of its {key}{f', {text}' if text else ''}"
            return f"{name}: its {key} is {_value(given[key])}, not {_value(wanted[key])}"
    return ""


def _value(attribute: Any) -> str:
    import onnx

    match attribute.type:
        case onnx.AttributeProto.FLOAT:
            return f"{attribute.f:.9g}"
        case onnx.AttributeProto.INT:
            return str(attribute.i)
        case onnx.AttributeProto.STRING:
            return repr(attribute.s.decode(errors="replace"))
        case onnx.AttributeProto.INTS:
            return str(list(attribute.ints))[:60]
        case _:
            return "another value"


def _properties(node: Any) -> Mapping[str, str]:
    return {p.key: p.value for p in node.metadata_props}


def _plain(value: Any, *, placed: bool) -> bytes:
    """A value without what says nothing of numbers, or where its bytes lie."""
    import onnx

    copy = type(value)()
    copy.CopyFrom(value)
    if isinstance(copy, onnx.TensorProto) and not placed:
        del copy.external_data[:]
    return copy.SerializeToString(deterministic=True)


def _plain_graph(graph: Any) -> bytes:
    """A graph inside of a node, without the places of its nodes."""
    copy = type(graph)()
    copy.CopyFrom(graph)
    for node in copy.node:
        del node.metadata_props[:]
        for attribute in node.attribute:
            if attribute.HasField("g"):
                inner = _plain_graph(attribute.g)
                attribute.g.ParseFromString(inner)
    return copy.SerializeToString(deterministic=True)
