"""`flowc inspect` of a build whose files are damaged says which, whether or not their hashes were made to fit."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from flowc.cli import main
from tests.robust.builds import TINY


@pytest.fixture
def model(tmp_path: Path) -> Path:
    assert main(["build", str(TINY), "-o", str(tmp_path / "model.onnx"), "--verify", "off"]) == 0
    return tmp_path / "model.onnx"


def made_to_fit(model: Path) -> None:
    path = model.with_name("model.flowc.json")
    manifest = json.loads(path.read_text())
    for record in manifest["graphs"].values():
        record["sha256"] = hashlib.sha256(model.with_name(record["file"]).read_bytes()).hexdigest()
    path.write_text(json.dumps(manifest))


@pytest.mark.parametrize("fit", [False, True])
@pytest.mark.parametrize("content", [b"", b"\x00", b"not a graph", b"\xff" * 99, None])
def test_a_damaged_graph(model: Path, content: bytes | None, fit: bool, capsys: pytest.CaptureFixture[str]) -> None:
    model.write_bytes(model.read_bytes()[:-400] if content is None else content)
    if fit:
        made_to_fit(model)
    capsys.readouterr()
    assert main(["inspect", str(model)]) == 1
    told = capsys.readouterr()
    assert told.err.startswith(f"error[{'load-failed' if fit else 'changed-file'}]: ")
    assert not told.out


@pytest.mark.parametrize(
    ("name", "content", "code", "says"),
    [
        ("model.onnx", None, 1, "missing-file"),
        ("model.onnx.data", None, 3, "missing-file"),
        ("model.onnx.data", b"x", 3, "changed-file"),
        ("model.flowc.json", b"{", 2, "bad-manifest"),
        ("model.flowc.json", b"\xff", 2, "bad-manifest"),
    ],
)
def test_other_damage(
    model: Path, name: str, content: bytes | None, code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = model.with_name(name)
    path.unlink() if content is None else path.write_bytes(content)
    capsys.readouterr()
    assert (
        main(["inspect", str(model.with_name("model.decode.onnx" if name == "model.onnx" else "model.onnx"))]) == code
    )
    assert f"error[{says}]" in capsys.readouterr().err
