"""`--bisect-passes`: the pass without which a wrong graph is right, by building it again with fewer passes."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from flowc.build.files import graph_file
from flowc.compile import build, compile_spec
from flowc.errors import FlowError, InternalError, SpecError
from flowc.passes.pipeline import current_name, pass_names
from flowc.verify.built_model import BuiltModel
from flowc.verify.checks import Checks
from flowc.verify.inputs import Call


def bisect(checks: Checks) -> str:
    """The culprit in words: a pass, or what comes before or after all of them.

    Builds the failing graph with the first pass, the first two, ... in a binary search, and runs the call that failed.
    """
    subject = checks.subject
    if subject.compiled.checkpoint is None:
        raise SpecError.of("no-weights", "--bisect-passes builds the model again: name its weights with --weights")
    call = checks.first_wrong
    if call is None:
        return "no graph gives wrong numbers, so no pass is to blame"
    left_out = {current_name(name) for name in subject.compiled.request.skip_passes}
    names = [name for name in pass_names() if name not in left_out]
    if not _wrong(subject, call, names):
        return "none: built again, the graph is right; the files are not what this flowc builds"
    if _wrong(subject, call, []):
        return "none: wrong without any pass, so the lowering is to blame"
    good, bad = 0, len(names)
    while bad - good > 1:
        middle = (good + bad) // 2
        if _wrong(subject, call, names[:middle]):
            bad = middle
        else:
            good = middle
    return names[bad - 1]


def _wrong(subject: BuiltModel, call: Call, passes: list[str]) -> bool:
    """Whether the graph of a call goes wrong when only these passes run."""
    asked = subject.compiled.request
    skipped = tuple(name for name in pass_names() if name not in passes)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "model.onnx"
        request = replace(asked, graphs=(call.phase,), skip_passes=skipped)
        try:
            compiled = compile_spec(subject.compiled.spec, request)
            build(compiled, out, verify="off")
            again = BuiltModel(compiled, {call.phase: Path(folder) / graph_file(out, call.phase)})
            found = again.run(call)
            differences = again.outputs_differ(call, found, subject.reference(call), found)
        except (FlowError, InternalError):
            return True
    return not all(d.good for d in differences)
