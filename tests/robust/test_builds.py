from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from flowc.build.compiled import Request
from flowc.cli import main
from flowc.compile import build, compile_file
from flowc.errors import FlowError
from flowc.text.source import plain, read_spec
from tests.robust.builds import TINY, agrees, digests, finish, larger, start


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def test_the_same_bytes_whatever_the_surroundings(tmp_path: Path, umask: None) -> None:
    first = tmp_path / "one" / "model.onnx"
    finish(start(TINY, first, PYTHONHASHSEED="1", OMP_NUM_THREADS="1"))
    copy = tmp_path / "elsewhere" / "deep" / TINY.name
    copy.parent.mkdir(parents=True)
    copy.write_text(TINY.read_text())
    os.umask(0o022)
    second = tmp_path / "two" / "nested" / "model.onnx"
    finish(start(copy, second, PYTHONHASHSEED="77", OMP_NUM_THREADS="2", TZ="Asia/Tokyo", LC_ALL="C"))
    assert digests(first.parent) == digests(second.parent)
    assert len(digests(first.parent)) == 5


def test_files_get_the_rights_that_the_umask_leaves(tmp_path: Path, umask: None) -> None:
    finish(start(TINY, tmp_path / "model.onnx"))
    assert {p.stat().st_mode & 0o777 for p in tmp_path.iterdir()} == {0o600}


def test_locked_repeats_a_build_and_nothing_else(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lock = tmp_path / "lock" / "model.flowc.json"
    assert main(["build", str(TINY), "-o", str(lock.parent / "model.onnx")]) == 0
    again = str(tmp_path / "again" / "model.onnx")
    assert main(["build", str(TINY), "-o", again, "--verify", "off", "--locked", str(lock)]) == 0
    capsys.readouterr()
    other = tmp_path / "other.yaml"
    for old, new, named in (
        ("norm_eps: 1e-5", "norm_eps: 1e-4", "spec.model.norm_eps"),
        ("random: 0", "random: 1", "spec.weights.random"),
    ):
        other.write_text(TINY.read_text().replace(old, new))
        out = tmp_path / named
        assert main(["build", str(other), "-o", str(out / "model.onnx"), "--locked", str(lock)]) == 1
        assert f"error[locked]: {named} is" in capsys.readouterr().err
        assert not out.exists()
    assert main(["build", str(TINY), "-o", again, "--logits", "all", "--locked", str(lock)]) == 1
    assert "logits is 'all', the lock says 'last'" in capsys.readouterr().err


def test_locked_sees_other_weights_of_the_same_shapes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spec = tmp_path / "model.yaml"
    spec.write_text(TINY.read_text().replace("random: 0", "file: model.safetensors"))
    compiled = compile_file(TINY, Request())
    assert compiled.checkpoint is not None
    tensors = {name: compiled.checkpoint.read(name) for name in compiled.checkpoint.tensors()}
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    assert main(["build", str(spec), "-o", str(tmp_path / "a" / "model.onnx")]) == 0
    tensors["model.norm.weight"] = tensors["model.norm.weight"] + np.float32(1e-7)
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    lock = str(tmp_path / "a" / "model.flowc.json")
    assert main(["build", str(spec), "-o", str(tmp_path / "b" / "model.onnx"), "--locked", lock]) == 1
    assert "data[0].sha256" in capsys.readouterr().err
    assert not (tmp_path / "b").exists()


def test_no_graph_is_left_beside_the_data_of_another_build(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "model.onnx"
    (tmp_path / "theirs.onnx").write_bytes(b"model.onnx.data")
    build_tiny = ["build", str(TINY), "-o", str(out), "--verify", "off", "--graph"]
    assert main([*build_tiny, "unified,decode"]) == 0
    capsys.readouterr()
    assert main([*build_tiny, "prefill"]) == 0
    names = {"model.prefill.onnx", "model.onnx.data", "model.flowc.json", "theirs.onnx"}
    assert {p.name for p in tmp_path.iterdir()} == names
    told = capsys.readouterr()
    assert f"note: removed {out}: its weights were in the model.onnx.data of an earlier build" in told.err
    assert f"note: removed {tmp_path / 'model.decode.onnx'}: " in told.err
    assert "removed" not in told.out
    assert main([*build_tiny, "prefill,decode"]) == 0
    assert "removed" not in capsys.readouterr().err
    assert agrees(tmp_path)


def test_what_a_build_reads_is_never_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = TINY.read_text()
    for name, out in (("model.onnx", "model.onnx"), ("model.flowc.json", "model.onnx"), ("m.onnx.data", "m.onnx")):
        spec = tmp_path / name
        spec.write_text(text if spec.suffix != ".json" else json.dumps(plain(read_spec(TINY))))
        assert main(["build", str(spec), "-o", str(tmp_path / out), "--verify", "off"]) == 2
        told = capsys.readouterr().err
        by_name = "is a file of a build, and this command takes a spec"
        by_file = f"error[bad-output]: cannot write {spec}: the command reads it"
        assert by_name in told or by_file in told
        assert [p.name for p in tmp_path.iterdir()] == [name]
        spec.unlink()


@pytest.mark.parametrize("fails", [False, True])
def test_a_build_beside_its_weights_leaves_them_alone(
    fails: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compiled = compile_file(TINY, Request())
    assert compiled.checkpoint is not None
    tensors = {name: compiled.checkpoint.read(name) for name in compiled.checkpoint.tensors()}
    if fails:
        tensors["model.norm.weight"] = tensors["model.norm.weight"] * np.float32(np.nan)
    safetensors.numpy.save_file(tensors, tmp_path / "model.safetensors")
    (tmp_path / "real.json").write_text("{}")
    (tmp_path / "tokenizer.json").symlink_to("real.json")
    (tmp_path / "tokenizer_config.json").write_text("{}")
    before = {p.name: (p.lstat().st_ino, p.lstat().st_mtime_ns) for p in tmp_path.iterdir()}
    weights, out = str(tmp_path / "model.safetensors"), str(tmp_path / "model.onnx")
    options = ["--in-place", "--weights", weights, "-o", out]
    assert main(["build", str(TINY), *options]) == (3 if fails else 0)
    if fails:
        told = capsys.readouterr().err
        assert "error[non-finite-weight]: tensor 'model.norm.weight' holds nan at [0] (stage rms_norm)" in told
    after = {p.name: (p.lstat().st_ino, p.lstat().st_mtime_ns) for p in tmp_path.iterdir()}
    assert {name: after.get(name) for name in before} == before
    if fails:
        assert after == before
    else:
        assert agrees(tmp_path)


def test_weights_that_shrink_while_they_are_read(tmp_path: Path) -> None:
    spec = tmp_path / "model.yaml"
    spec.write_text(TINY.read_text().replace("random: 0", "file: model.safetensors"))
    source = compile_file(TINY, Request()).checkpoint
    assert source is not None
    safetensors.numpy.save_file({name: source.read(name) for name in source.tensors()}, tmp_path / "model.safetensors")
    compiled = compile_file(spec, Request())
    size = (tmp_path / "model.safetensors").stat().st_size
    os.truncate(tmp_path / "model.safetensors", size // 2)
    with pytest.raises(FlowError) as error:
        build(compiled, tmp_path / "out" / "model.onnx")
    assert error.value.exit_code == 3
    assert not (tmp_path / "out").exists()


def test_two_builds_into_one_folder_leave_one_whole_set(tmp_path: Path) -> None:
    for attempt in range(2):
        out = tmp_path / str(attempt) / "model.onnx"
        racers = [start(larger(tmp_path, seed, 4_000), out) for seed in (1, 2)]
        for racer in racers:
            finish(racer)
        assert agrees(out.parent)
        assert {p.name for p in out.parent.iterdir()} == set(digests(out.parent))


def kill_builds(folder: Path, count: int, seed: int) -> tuple[int, int]:
    """Kill builds at random moments; returns how many died before they were done, and how many left a whole set.

    Every file under a final name must be one that a finished build writes, and a manifest must agree with all of them.
    """
    rng = random.Random(seed)
    specs = [larger(folder, 1), larger(folder, 2)]
    whole: list[dict[str, str]] = []
    took = 0.0
    for number, spec in enumerate(specs):
        begun = time.monotonic()
        finish(start(spec, folder / f"whole{number}" / "model.onnx"))
        took = time.monotonic() - begun
        whole.append(digests(folder / f"whole{number}"))
    out = folder / "out" / "model.onnx"
    killed = kept = 0
    for attempt in range(count):
        process = start(specs[attempt % 2], out)
        time.sleep(rng.uniform(0, 1.1 * took))
        process.kill()
        process.communicate()
        killed += process.returncode != 0
        for name, digest in digests(out.parent).items():
            assert digest in [files.get(name) for files in whole], f"{name} is not whole after kill {attempt}"
        if (out.parent / "model.flowc.json").exists():
            assert agrees(out.parent), f"the manifest lies after kill {attempt}"
            kept += 1
    return killed, kept


def test_a_killed_build_leaves_no_half_files(tmp_path: Path) -> None:
    killed, _ = kill_builds(tmp_path, 6, seed=1)
    assert killed


@pytest.mark.slow
def test_two_hundred_killed_builds_leave_no_half_files(tmp_path: Path) -> None:
    killed, kept = kill_builds(tmp_path, 200, seed=2)
    assert killed >= 100
    assert kept
