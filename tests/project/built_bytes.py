"""Digests of what flowc builds today: a change of the compiler that means no other graphs changes none of them.

    python -m tests.project.built_bytes            write golden/built_bytes.json again
    python -m tests.project.built_bytes --check    say which graphs differ from it; exit 1 when any does

Every example, and every checkpoint of golden/oracles, is built in each form of `FORMS`. A digest is that of a graph
or of the data file, so it holds every operator, every name, every number, and the place of every weight.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from flowc.build.compiled import Request
from flowc.compile import build, compile_file
from flowc.errors import SpecError
from flowc.frontend.state import Options
from flowc.importers import import_checkpoint
from tests.oracle_io import ROOT

RECORD = ROOT / "golden" / "built_bytes.json"
FORMS: dict[str, tuple[str, Options]] = {
    "ort-cpu": ("ort-cpu", Options()),
    "ort-cpu right-padding": ("ort-cpu", Options("right-padding")),
    "portable all": ("portable", Options(logits="all")),
    "portable no-padding": ("portable", Options("no-padding")),
}
"""Target and options of each form in which a model is built."""


MADE_WITH = ("numpy", "onnx", "onnx-ir")
"""Libraries that have a say in the bytes; of other versions nothing is claimed."""


def models() -> dict[str, Path]:
    """Examples and checkpoints by the names that the record uses."""
    examples = {f"examples/{p.stem}": p for p in sorted((ROOT / "examples").glob("*.yaml"))}
    folders = sorted((ROOT / "golden" / "oracles").iterdir())
    return examples | {f"oracles/{p.name}": p for p in folders if (p / "config.json").is_file()}


def digests(source: Path) -> Iterator[tuple[str, str]]:
    """Each file of a model in each form, as `FORM: FILE`, and its sha256; nothing for a form that is refused."""
    with tempfile.TemporaryDirectory() as folder:
        spec = source
        if source.is_dir():
            spec = Path(folder) / "model.yaml"
            spec.write_text(import_checkpoint(source).text(Path(folder)), encoding="utf-8")
        for form, (target, options) in FORMS.items():
            out = Path(folder) / form.replace(" ", "-") / "model.onnx"
            try:
                build(compile_file(spec, Request(target=target, options=options)), out, verify="off")
            except SpecError as refused:
                yield f"{form}: refused", refused.diagnostics[0].code
                continue
            for file in sorted(out.parent.glob("model*.onnx*")):
                yield f"{form}: {file.name}", hashlib.sha256(file.read_bytes()).hexdigest()


def found_now() -> dict[str, dict[str, str]]:
    """The digests of what this checkout builds, by model."""
    return {name: dict(digests(source)) for name, source in models().items()}


def write() -> int:
    """Write the record."""
    record = {"made_with": {library: version(library) for library in MADE_WITH}, "models": found_now()}
    RECORD.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return 0


def stale() -> list[str]:
    """What a look at the record alone can tell: models that it lacks, or that are gone."""
    names = set(json.loads(RECORD.read_text(encoding="utf-8"))["models"])
    return [f"golden/built_bytes.json, {name}" for name in sorted(names ^ set(models()))]


def main() -> int:
    """Write or check the record."""
    if "--check" not in sys.argv:
        return write()
    found = found_now()
    recorded = json.loads(RECORD.read_text(encoding="utf-8"))["models"]
    wrong = [
        f"{name}, {what}"
        for name in {**recorded, **found}
        for what in {**recorded.get(name, {}), **found.get(name, {})}
        if recorded.get(name, {}).get(what) != found.get(name, {}).get(what)
    ]
    print("\n".join(wrong) or f"{sum(map(len, found.values()))} files are what they were")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
