"""Builds in processes of their own, for tests that kill them, race them, or change their surroundings."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import safetensors.numpy

from flowc.build.compiled import Request
from flowc.compile import compile_file
from tests.oracle_io import ROOT

TINY = ROOT / "examples" / "tiny-llama.yaml"


def command(spec: Path, out: Path, *options: str) -> list[str]:
    """The command line of a build without checks."""
    return [sys.executable, "-m", "flowc", "build", str(spec), "-o", str(out), "--verify", "off", *options]


def surroundings(**changes: str) -> dict[str, str]:
    """This process's environment with changes, and the checkout on the path."""
    return {**os.environ, "PYTHONPATH": str(ROOT), **changes}


def start(spec: Path, out: Path, *options: str, **changes: str) -> subprocess.Popen[bytes]:
    """A build that runs."""
    pipe = subprocess.PIPE
    return subprocess.Popen(command(spec, out, *options), env=surroundings(**changes), stdout=pipe, stderr=pipe)


def finish(process: subprocess.Popen[bytes]) -> None:
    """Wait for a build that must succeed."""
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, (out + err).decode()


def digests(folder: Path) -> dict[str, str]:
    """Hash of every file under a final name, by name."""
    files = [p for p in folder.iterdir() if p.is_file()] if folder.is_dir() else []
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def agrees(folder: Path) -> bool:
    """Whether the files are those that the manifest names; False without a manifest."""
    path = folder / "model.flowc.json"
    if not path.is_file():
        return False
    manifest = json.loads(path.read_text())
    found: Mapping[str, str] = digests(folder)
    records = [*manifest["graphs"].values(), *manifest["data"], *manifest["tokenizer"]]
    return all(found.get(r["file"]) == r["sha256"] for r in records)


def weights_of(spec: Path, path: Path) -> None:
    """Save the random weights of a spec as safetensors."""
    checkpoint = compile_file(spec, Request()).checkpoint
    assert checkpoint is not None
    safetensors.numpy.save_file({name: checkpoint.read(name) for name in checkpoint.tensors()}, path)


def larger(folder: Path, seed: int, vocab: int = 40_000) -> Path:
    """A spec whose data file is some tens of megabytes, so that writing it takes a while."""
    text = TINY.read_text().replace("vocab: 256", f"vocab: {vocab}").replace("hidden: 64", "hidden: 256")
    path = folder / f"model-{seed}.yaml"
    path.write_text(text.replace("random: 0", f"random: {seed}"))
    return path
