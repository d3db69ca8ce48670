"""Plants a fault, builds, and lets `flowc verify` judge the files."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from flowc.build import manifest as manifests
from flowc.build.compiled import Compiled, Request
from flowc.compile import build, compile_file
from flowc.errors import FlowError
from flowc.ir.canonical import canonical
from flowc.ir.verify import verify as well_formed
from flowc.passes.pipeline import run
from flowc.verify.full import verify
from flowc.verify.rebuild import recompile
from tests.mutation.faults import Fault
from tests.oracle_io import ROOT


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `flowc verify` said of a build."""

    caught: bool
    checks: tuple[str, ...]
    """Names of the checks that failed."""
    stage: str
    """The first wrong stage that it named."""


@functools.cache
def compiled_example(name: str) -> Compiled:
    """An example spec, compiled once."""
    return compile_file(ROOT / "examples" / f"{name}.yaml", Request())


def judge(folder: Path, *, without: str = "") -> Verdict:
    """Verify a build as the command does: from its files and its manifest alone.

    A folder that the command refuses to begin with counts as caught, with the code of its error. `without` is a check
    that does not count.
    """
    try:
        manifest = manifests.load(folder)
        failures = [c for c in verify(manifest, recompile(manifest)).failures if c.name != without]
    except FlowError as error:
        return Verdict(True, tuple(d.code for d in error.diagnostics), "")
    stages = [f.location.stage if f.location is not None else f.stage for f in failures]
    names = tuple(dict.fromkeys(f.name for f in failures))
    return Verdict(bool(failures), names, next((s for s in stages if s), ""))


def planted(fault: Fault, folder: Path, sound: Compiled | None = None) -> Verdict:
    """Build an example (or `sound`, compiled of it with other weights) with the fault in every graph, and judge it.

    Fails when the fault changes nothing: a fault that is not there proves nothing. That the files are not what their
    spec is lowered to does not count: a real fault of the compiler would be in both.
    """
    sound = sound or compiled_example(fault.example)
    faulty = {phase: fault.plant(graph) for phase, graph in sound.expanded.items()}
    changes = [p for p, g in sound.expanded.items() if canonical(faulty[p]) != canonical(g)]
    assert changes, f"'{fault.name}' is not planted"
    for phase, graph in faulty.items():
        well_formed(graph, None, f"planting in {phase}")
    context = sound.pass_context
    graphs = {phase: run(graph, context)[0] for phase, graph in faulty.items()}
    build(replace(sound, expanded=faulty, graphs=graphs), folder / "model.onnx", verify="off")
    return judge(folder, without="lowered")


def damaged(damage: Callable[[Path], None], folder: Path) -> Verdict:
    """Build the tiny Llama as it should be, damage its files, and judge them."""
    build(compiled_example("tiny-llama"), folder / "model.onnx", verify="off")
    damage(folder)
    return judge(folder)
