"""A build that came back through a hub's cache, every file a link into another folder, is verified as it is."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest

from flowc.errors import CheckFailed
from flowc.verify.built_model import exposed
from tests.cli.calling import flowc
from tests.runtime.checkpoints import built, hub_folder
from tests.runtime.tiny import TinyLlama


def linked(built_folder: Path, hub: Path) -> Path:
    """The same files as a hub's cache keeps them: named by their hash in blobs/, linked to in snapshots/1/."""
    blobs, snapshot = hub / "blobs", hub / "snapshots" / "1"
    for folder in (blobs, snapshot):
        folder.mkdir(parents=True)
    for file in built_folder.iterdir():
        blob = blobs / hashlib.sha256(file.read_bytes()).hexdigest()
        shutil.copyfile(file, blob)
        (snapshot / file.name).symlink_to(Path("..") / ".." / "blobs" / blob.name)
    return snapshot


def test_a_hubs_cache_runs_and_verifies(tmp_path: Path) -> None:
    built(hub_folder(tmp_path / "in", TinyLlama()), tmp_path / "out")
    snapshot = linked(tmp_path / "out", tmp_path / "hub")
    said = flowc("run", snapshot / "model.onnx", "--ids", "5,6,7", "-n", 4).stdout
    assert said == flowc("run", tmp_path / "out", "--ids", "5,6,7", "-n", 4).stdout
    called = flowc("verify", snapshot / "model.onnx")
    assert called.code == 0, called.stderr
    assert called.stdout == flowc("verify", tmp_path / "out").stdout


def test_links_into_several_folders_are_named(tmp_path: Path) -> None:
    """Onnxruntime looks for all data of a graph without a path in one folder."""
    import onnx

    built(hub_folder(tmp_path / "in", TinyLlama()), tmp_path / "out")
    graph = tmp_path / "out" / "model.decode.onnx"
    model = onnx.load(str(graph), load_external_data=False)
    for place, folder in (("a.data", tmp_path / "a"), ("b.data", tmp_path / "b")):
        folder.mkdir()
        shutil.copyfile(tmp_path / "out" / "model.onnx.data", folder / "data")
        (tmp_path / "out" / place).symlink_to(folder / "data")
    external = [t for t in model.graph.initializer if t.external_data]
    for count, tensor in enumerate(external):
        entry = next(e for e in tensor.external_data if e.key == "location")
        entry.value = ("a.data", "b.data")[count % 2]
    graph.write_bytes(model.SerializeToString())
    with pytest.raises(CheckFailed, match="links into several folders: copy them first"):
        exposed(graph, [])
