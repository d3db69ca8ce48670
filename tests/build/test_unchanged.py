"""Unchanged inputs build nothing; each input, changed once, does. Never a wrong "up to date"."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

import flowc
from flowc.build import remembered, unchanged
from tests.cli.calling import BASE, done, save_file
from tests.cli.calling import flowc as command
from tests.runtime.words import byte_level, files

LARGE = BASE.replace("vocab: 32", "vocab: 40000").replace("{random: 0}", "{file: weights}")
"""More than a mebibyte of weights: known by status, not by hash."""


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a spec, large weights with a tokenizer, and a build of them in `out`."""
    monkeypatch.setenv("FLOWC_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remembered, "known", {})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "model.yaml").write_text(LARGE)
    (tmp_path / "weights").mkdir()
    save_file(drawn(tmp_path), tmp_path / "weights" / "model.safetensors")
    assert (tmp_path / "weights" / "model.safetensors").stat().st_size > remembered.SMALL
    for name, text in files(byte_level(), {"eos_token": "<|end|>"}).items():
        (tmp_path / "weights" / name).write_text(text)
    settle(tmp_path / "weights" / "model.safetensors")
    assert not build().up_to_date
    return tmp_path


def drawn(folder: Path) -> dict[str, Any]:
    from flowc.build.compiled import Request
    from flowc.compile import compile_file

    (folder / "shapes.yaml").write_text(LARGE.replace("{file: weights}", "{random: 0}"))
    shapes = compile_file(folder / "shapes.yaml", Request()).usage.tensors
    rng = np.random.default_rng(1)
    return {name: rng.standard_normal(shape).astype(np.float32) for name, (shape, _) in shapes.items()}


def settle(path: Path) -> None:
    """Wait until a later write of a file has another time, as it has whenever a person makes one."""
    while time.time_ns() - path.stat().st_ctime_ns <= 2 * remembered.SETTLED:
        time.sleep(0.01)


def build(**options: Any) -> flowc.Built:
    given: dict[str, Any] = {"verify": "off", "graphs": ["unified"], **options}
    return flowc.build("model.yaml", "out/model.onnx", **given)


def contents(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Every file of the build: its inode, which a new file has of its own, and its bytes."""
    return {p.name: (p.stat().st_ino, p.read_bytes()) for p in sorted((folder / "out").iterdir())}


def test_nothing_changed(made: Path) -> None:
    before = contents(made)
    again = build()
    assert again.up_to_date
    assert contents(made) == before
    assert {file.name for file in again.files} == set(before)
    assert again.sizes == {name: len(content) for name, (_, content) in before.items()}
    assert again.graphs["unified"]["inputs"]["input_ids"] == "int64[batch_size, sequence_length]"
    forced = build(force=True)
    assert not forced.up_to_date
    assert forced.graphs == again.graphs
    assert {f.name for f in forced.files} == {f.name for f in again.files}
    after = contents(made)
    assert {n: c for n, (_, c) in after.items()} == {n: c for n, (_, c) in before.items()}
    assert all(after[name][0] != before[name][0] for name in after)


def test_the_command_says_so(made: Path) -> None:
    line = ("build", "model.yaml", "-o", "out/model.onnx", "--verify", "off", "--graph", "unified")
    told = done(*line)
    assert told.stderr.endswith("up to date (--force builds it again)\n")
    assert done(*line, "--json").json()["up_to_date"] is True
    assert done(*line, "--json").json()["checks"] == []
    forced = done(*line, "--force", "--json").json()
    assert forced["up_to_date"] is False
    assert forced["files"] == done(*line, "--json").json()["files"]
    assert done(*line, "--force").stdout == told.stdout


def spoil(path: Path, at: int = -4) -> None:
    """Other bytes, as many, in the same file."""
    with path.open("r+b") as stream:
        stream.seek(at, os.SEEK_END if at < 0 else os.SEEK_SET)
        old = stream.read(1)
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([old[0] ^ 1]))


def back_dated(path: Path) -> None:
    status = path.stat()
    spoil(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (status.st_size, status.st_mtime_ns)


def exchanged(path: Path) -> None:
    """Another file under the name, of the same size and time."""
    status = path.stat()
    copy = path.with_name("copy")
    shutil.copyfile(path, copy)
    spoil(copy)
    os.utime(copy, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(copy, path)


def replaced(name: str, old: str, new: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        text = (folder / name).read_text()
        assert old in text
        (folder / name).write_text(text.replace(old, new))

    return change


WEIGHTS, OUT = "weights/model.safetensors", "out/model.onnx"
CHANGES: dict[str, Callable[[Path], object]] = {
    "a number of the spec": replaced("model.yaml", "1e-5", "1e-4"),
    "weights of the same size and time": lambda folder: back_dated(folder / WEIGHTS),
    "other weights of the same size and time": lambda folder: exchanged(folder / WEIGHTS),
    "weights, only touched": lambda folder: os.utime(folder / WEIGHTS),
    "a tokenizer": replaced("weights/tokenizer_config.json", "<|end|>", "<|end |>"),
    "a file beside the weights that was not there": lambda folder: (
        folder / "weights" / "generation_config.json").write_text('{"eos_token_id": 5}'),
    "a file beside the weights that is gone": lambda folder: (folder / "weights/tokenizer_config.json").unlink(),
    "a graph": lambda folder: spoil(folder / OUT),
    "a graph that is gone": lambda folder: (folder / OUT).unlink(),
    "data of the same size and time": lambda folder: back_dated(folder / "out/model.onnx.data"),
    "a tokenizer of the build": lambda folder: spoil(folder / "out/tokenizer.json"),
    "a tokenizer of the build that is gone": lambda folder: (folder / "out/tokenizer.json").unlink(),
    "the manifest": replaced("out/model.flowc.json", '"verify"', '"verify" '),
    "the manifest gone": lambda folder: (folder / "out/model.flowc.json").unlink(),
    "the record gone": lambda folder: shutil.rmtree(folder / "cache"),
    "the record of no use": lambda folder: [p.write_text("[]") for p in (folder / "cache/builds").iterdir()],
}  # fmt: skip


@pytest.mark.parametrize("what", CHANGES)
def test_one_change_builds(what: str, made: Path) -> None:
    assert build().up_to_date
    CHANGES[what](made)
    settle(made / WEIGHTS)
    remembered.known.clear()
    assert not build().up_to_date
    sound = contents(made)
    assert build().up_to_date
    build(force=True)
    assert {n: c for n, (_, c) in contents(made).items()} == {n: c for n, (_, c) in sound.items()}


OPTIONS: dict[str, dict[str, Any]] = {
    "graphs": {"graphs": ["unified", "decode"]},
    "target": {"target": "portable"},
    "logits": {"logits": "all"},
    "assume": {"assume": "no-padding"},
    "cache": {"cache": "static"},
    "context": {"context": 32},
    "dtype": {"dtype": "float16"},
    "islands": {"dtype": "float16", "islands": ["rms_norm"]},
    "skip_passes": {"skip_passes": ["fold_rope"]},
    "shard_bytes": {"shard_bytes": 1 << 20},
    "verify": {"verify": "quick"},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_another_option_builds(name: str, made: Path) -> None:
    assert not build(**OPTIONS[name]).up_to_date
    assert build(**OPTIONS[name]).up_to_date
    assert not build().up_to_date


def test_every_option_of_a_build_is_tried() -> None:
    import inspect

    free = {"spec", "output", "in_place", "locked", "force", "progress", "watch", "form", "weights"}
    from flowc import api

    options = set(inspect.signature(api.build).parameters) | set(api.Form.__annotations__)
    assert options - free == set(OPTIONS)


def test_other_weights_by_option(made: Path) -> None:
    shutil.copytree(made / "weights", made / "others")
    settle(made / "others/model.safetensors")
    assert not build(weights="others").up_to_date  # its hash is not known, so nothing says that it is the same
    assert build(weights="others").up_to_date


def test_small_weights_are_known_by_what_they_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWC_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    arrays = {n: a[:32] if n == "embed.weight" else a for n, a in drawn(tmp_path).items()}
    (tmp_path / "model.yaml").write_text(LARGE.replace("vocab: 40000", "vocab: 32").replace("weights}", "w.npz}"))
    np.savez(tmp_path / "w.npz", allow_pickle=False, **arrays)
    build()
    os.utime(tmp_path / "w.npz")
    shutil.copyfile("w.npz", "copy.npz")
    os.replace("copy.npz", "w.npz")
    assert build().up_to_date
    back_dated(tmp_path / "w.npz")
    with pytest.raises(flowc.WeightsError):
        build()  # a damaged archive


def test_a_hash_that_is_remembered_tells_a_copy_apart(made: Path) -> None:
    remembered.remembered_sha256(made / WEIGHTS)
    build(force=True)
    shutil.copyfile(made / WEIGHTS, made / "copy")
    os.replace(made / "copy", made / WEIGHTS)
    assert build().up_to_date
    exchanged(made / WEIGHTS)
    assert not build().up_to_date


def test_weights_that_change_during_a_build_are_not_remembered(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flowc import compile as compiling

    whole = compiling.build

    def changing(*words: Any, **options: Any) -> Any:
        built = whole(*words, **options)
        back_dated(made / WEIGHTS)
        return built

    monkeypatch.setattr(compiling, "build", changing)
    build(force=True)
    monkeypatch.undo()
    monkeypatch.chdir(made)
    monkeypatch.setenv("FLOWC_CACHE", str(made / "cache"))
    assert not build().up_to_date


def test_weights_written_within_the_tick_of_the_clock_are_not_trusted(
    made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unchanged, "SETTLED", 10**18)
    build(force=True)
    assert not build().up_to_date


def test_another_flowc_builds(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowc.build.facts.__version__", "0.0.9")
    assert not build().up_to_date
    assert build().up_to_date
    code = unchanged.code_digest()
    monkeypatch.setattr(unchanged, "LIBRARIES", ())
    assert unchanged.code_digest() != code
    assert not build().up_to_date


def test_a_module_of_flowc_that_changed_builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copied = tmp_path / "flowc" / "build" / "unchanged.py"
    copied.parent.mkdir(parents=True)
    copied.write_text("a = 1\n")
    monkeypatch.setattr(unchanged, "__file__", str(copied))
    before = unchanged.code_digest()
    assert unchanged.code_digest() == before
    settle(copied)
    back_dated(copied)
    assert unchanged.code_digest() != before


def test_a_text_beside_the_spec(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tests.oracle_io import ROOT

    monkeypatch.setenv("FLOWC_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    inline: Any = json.loads(json.dumps(flowc.load(ROOT / "examples/custom.yaml").resolved({})))

    found: list[dict[str, Any]] = []
    left: list[Any] = [inline["flow"]]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            fields = cast("dict[str, Any]", one)
            left += fields.values()
            found += [fields] if "onnx" in fields else []
        elif isinstance(one, list):
            left += cast("list[Any]", one)
    body = found[0]
    (tmp_path / "part.txt").write_text(body.pop("onnx"))
    body["file"] = "part.txt"
    (tmp_path / "model.yaml").write_text(json.dumps(inline))
    assert not build(graphs=()).up_to_date
    assert build(graphs=()).up_to_date
    (tmp_path / "part.txt").write_text((tmp_path / "part.txt").read_text() + "\n")
    assert not build(graphs=()).up_to_date


def test_weights_in_place(made: Path) -> None:
    (made / "model.yaml").write_text(LARGE.replace("file: weights", "file: out/w.safetensors"))
    shutil.copyfile(made / WEIGHTS, made / "out/w.safetensors")
    settle(made / "out/w.safetensors")
    assert not build(in_place=True).up_to_date
    assert build(in_place=True).up_to_date
    back_dated(made / "out/w.safetensors")
    assert not build(in_place=True).up_to_date


def test_a_lock_is_held_to_what_is_there(made: Path) -> None:
    shutil.copyfile("out/model.flowc.json", "lock.flowc.json")
    assert build(locked="lock.flowc.json").up_to_date
    replaced("lock.flowc.json", '"norm_eps": 1e-05', '"norm_eps": 0.1')(made)
    with pytest.raises(flowc.CheckFailed, match="norm_eps"):
        build(locked="lock.flowc.json")


def test_a_folder_that_cannot_be_written_is_no_matter(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLOWC_CACHE", str(made / "model.yaml" / "cache"))
    assert not build().up_to_date
    assert not build().up_to_date
    assert command("build", "model.yaml", "-o", "out/model.onnx", "--verify", "off").code == 0
