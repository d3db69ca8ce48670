"""What the commands of `flowc golden` share: finding cases, and building the model of one."""

from __future__ import annotations

import contextlib
import fnmatch
import tempfile
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flowc.cli.sparing import onnx_ir_without_sympy
from flowc.errors import FlowError, SpecError, WeightsError, nearest
from flowc.outside.writing import write_whole

if TYPE_CHECKING:
    from flowc.build.compiled import Compiled
    from flowc.build.manifest import Manifest
    from flowc.golden.case import Case

PATH = click.Path(path_type=Path)
WEIGHTS = click.option("--weights", type=PATH, help="Weights, instead of those that the case or its spec names.")
FILTER = click.option("-k", "pattern", metavar="TEXT", help="Only cases whose names hold the text, or fit its * and ?.")


@dataclass(frozen=True, slots=True)
class Found:
    """A case file: the case, or why it is none, or why it is left out."""

    path: Path
    case: Case | None = None
    problem: FlowError | None = None
    skipped: str = ""

    @property
    def name(self) -> str:
        """The case's name; of a file that is no case, the file's."""
        return self.case.name if self.case is not None else self.path.stem


def find(paths: Sequence[Path], weights: Path | None, pattern: str | None) -> list[Found]:
    """The cases of files and of folders; of folders, one whose checkpoint is not there is marked as left out.

    Raises SpecError for a folder without cases, for two cases of one name, and for a pattern that no name fits.
    """
    from flowc.golden.case import load

    found: list[Found] = []
    for path in paths:
        inside = sorted(path.glob("*.yaml")) if path.is_dir() else [path]
        if not inside:
            raise SpecError.of("missing-file", f"{path} holds no golden case (*.yaml)")
        for file in inside:
            try:
                case = load(file)
            except FlowError as error:
                found.append(Found(file, problem=error))
                continue
            there = file in paths or weights or case.checkpoint is None or case.checkpoint.exists()
            skipped = "" if there else f"{case.checkpoint} is not there (give it with --weights)"
            found.append(Found(file, case, skipped=skipped))
    if pattern is None:
        return found
    wanted = pattern if any(c in pattern for c in "*?[") else f"*{pattern}*"
    kept = [one for one in found if fnmatch.fnmatchcase(one.name, wanted)]
    if not kept:
        names = [one.name for one in found]
        raise SpecError.of(
            "usage",
            f"no case is called '{pattern}'",
            hint=nearest(pattern, names) or f"they are {', '.join(names[:20])}",
        )
    return kept


def cases_of(paths: Sequence[Path], weights: Path | None, pattern: str | None = None) -> list[Case]:
    """The cases that are there; raises what is wrong with any of them."""
    cases: list[Case] = []
    for found in find(paths, weights, pattern):
        if found.problem is not None:
            raise found.problem
        if found.case is not None and not found.skipped:
            cases.append(found.case)
    return cases


@contextlib.contextmanager
def built(
    case: Case, weights: Path | None, model: Path | None = None, *, verified: bool = False
) -> Generator[tuple[Manifest, Compiled]]:
    """The case's model: built into a folder that is gone afterwards, or one that is there.

    `verified`: with the checks of `flowc build`; else a recording judges what was built.
    """
    from flowc.build import manifest as manifests
    from flowc.build.compiled import Request
    from flowc.compile import build, compile_file
    from flowc.verify.quick import check
    from flowc.verify.rebuild import recompile

    if model is not None:
        manifest = manifests.load(model)
        yield manifest, recompile(manifest, weights)
        return
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        imported = case.spec is None
        spec = _imported(case, weights, work) if case.spec is None else case.spec
        onnx_ir_without_sympy()
        compiled = compile_file(spec, Request(None if imported else weights, target=case.target))
        kind = "quick" if verified else "off"
        build(compiled, work / "out" / "model.onnx", verify=kind, check=check if verified else None)
        yield manifests.load(work / "out"), compiled


def _imported(case: Case, weights: Path | None, work: Path) -> Path:
    """A spec of the case's checkpoint, or of the one that --weights gives in its place."""
    from flowc.importers import import_checkpoint

    checkpoint = weights or case.checkpoint
    assert checkpoint is not None
    spec = work / f"{case.name}.yaml"
    write_whole(spec, import_checkpoint(checkpoint).text(work))
    return spec


def same_weights(case: Case, expected: object, compiled: Compiled) -> None:
    """Raise WeightsError unless the weights are those that a case names, or was recorded with."""
    from flowc.golden.play import weights_hashes

    wanted = [expected] if isinstance(expected, str) else expected
    found = weights_hashes(compiled)
    if wanted and found and wanted != found:
        raise WeightsError.of(
            "other-weights", f"case '{case.name}' was made for other weights: sha256 {found[0][:16]}…"
        )
