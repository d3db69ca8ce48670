"""A side file may be a FIFO, a device, a text in another encoding, too large or too deep: each is told."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowc.outside import reading
from flowc.outside.reading import MAX_DEPTH, TooLarge, Unreadable, json_of, read_bytes, read_json, read_text
from flowc.weights.npy import read_npy, read_npz
from tests.oracle_io import ROOT
from tests.robust.builds import TINY
from tests.robust.calling import flowc
from tests.runtime.tiny import TinyLlama
from tests.runtime.words import byte_level, files

DEEP = b'{"a": ' * 600 + b"1" + b"}" * 600


def a_fifo(path: Path) -> None:
    os.mkfifo(path)


def zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def too_large(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(6 << 30)  # sparse: the disk holds nothing


def too_deep(path: Path) -> None:
    path.write_bytes(DEEP)


def not_text(path: Path) -> None:
    path.write_bytes(b'{"a": "\xff\xfe"}')


def half_a_pair(path: Path) -> None:
    path.write_bytes(b'{"a": ["\\ud800"]}')


SPOIL: dict[str, Callable[[Path], None]] = {
    f.__name__: f for f in (a_fifo, zeros, too_large, too_deep, not_text, half_a_pair)
}


def spoil(path: Path, how: str) -> None:
    path.unlink(missing_ok=True)
    SPOIL[how](path)


@pytest.mark.parametrize("how", SPOIL)
def test_the_reader(tmp_path: Path, how: str) -> None:
    spoil(tmp_path / "x", how)
    with pytest.raises(Unreadable):
        read_json(tmp_path / "x")


def test_the_reader_reads(tmp_path: Path) -> None:
    value = {"b": 1, "pair": "\U0001f600"}
    (tmp_path / "x").write_text(json.dumps(value))
    assert read_json(tmp_path / "x") == value
    assert read_text(tmp_path / "x") == json.dumps(value)
    assert read_bytes(tmp_path / "x", (tmp_path / "x").stat().st_size) == json.dumps(value).encode()
    with pytest.raises(TooLarge):
        read_bytes(tmp_path / "x", (tmp_path / "x").stat().st_size - 1)
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "y", 1)
    with pytest.raises(Unreadable, match="a directory"):
        read_bytes(tmp_path, 1)
    with pytest.raises(Unreadable, match="null"):
        read_bytes(Path("a\0b"), 1)


@pytest.mark.parametrize("levels", [MAX_DEPTH, MAX_DEPTH + 1, 900, 100_000])
def test_depth(levels: int) -> None:
    text = b"[" * levels + b"]" * levels
    if levels <= MAX_DEPTH:
        json_of(text)
        return
    with pytest.raises(Unreadable, match="nested more than"):
        json_of(text)


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with every file that a tokenizer may have."""
    folder = tmp_path_factory.mktemp("chat")
    config = {"chat_template": "{{ messages[0].content }}", "eos_token": "<|end|>"}
    texts = files(byte_level(), config, chat_template_jinja="{{ messages[0].content }}", generation_config_json="{}")
    TinyLlama(vocab=258).write(folder / "out", ["unified"], tokenizer=texts)
    return folder / "out"


@pytest.mark.parametrize("how", SPOIL)
@pytest.mark.parametrize(
    "name",
    ["model.flowc.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"],
)
def test_files_of_a_model(chat: Path, tmp_path: Path, name: str, how: str) -> None:
    shutil.copytree(chat, tmp_path / "m")
    spoil(tmp_path / "m" / name, how)
    # Hashes made to fit are what a hostile file would come with; a FIFO has none.
    path = tmp_path / "m" / "model.flowc.json"
    if name != path.name and (tmp_path / "m" / name).is_file() and how != "too_large":
        manifest = json.loads(path.read_text())
        for record in manifest["tokenizer"]:
            if record["file"] == name:
                record["sha256"] = hashlib.sha256((tmp_path / "m" / name).read_bytes()).hexdigest()
        path.write_text(json.dumps(manifest))
    done = flowc("run", "m/model.onnx", "--prompt", "ab", "-n", "2", cwd=tmp_path)
    if name == "chat_template.jinja" and how in ("too_deep", "half_a_pair"):  # a text like any other
        assert done.code in (0, 2), done.err
        return
    assert done.code in (1, 2, 3), (done.code, done.err[-1500:])
    assert done.err.startswith("error["), done.err[:500]
    assert done.peak < 1e9


def a_spec(folder: Path) -> list[str]:
    shutil.copyfile(TINY, folder / "x.json")
    return ["check", "x.json"]


def a_config(folder: Path) -> list[str]:
    shutil.copytree(ROOT / "golden/oracles/llama_gqa4_bias", folder / "hf", copy_function=shutil.copyfile)
    shutil.move(folder / "hf" / "config.json", folder / "x.json")
    (folder / "hf" / "config.json").symlink_to("../x.json")
    return ["import", "hf"]


def an_index(folder: Path) -> list[str]:
    (folder / "hf").mkdir()
    (folder / "hf" / "model.safetensors.index.json").symlink_to("../x.json")
    (folder / "hf" / "config.json").write_text("{}")
    return ["import", "hf"]


def modules(folder: Path) -> list[str]:
    shutil.copytree(ROOT / "golden/oracles/bert_base_like", folder / "hf", copy_function=shutil.copyfile)
    (folder / "hf" / "modules.json").symlink_to("../x.json")
    return ["import", "hf"]


def a_recording(folder: Path) -> list[str]:
    (folder / "x.yaml").write_text(f"golden: 1\nspec: {TINY}\nprompts: [{{ids: [1], steps: 1}}]\n")
    return ["golden", "check", "x.yaml"]


def a_lock(_: Path) -> list[str]:
    return ["build", str(TINY), "-o", "out/model.onnx", "--locked", "x.json"]


def a_text_beside(folder: Path) -> list[str]:
    flow = "  - custom: {file: x.json}\n  - gather_last_token"
    (folder / "spec.yaml").write_text(TINY.read_text().replace("  - gather_last_token", flow))
    return ["check", "spec.yaml"]


def an_input(folder: Path) -> list[str]:
    TinyLlama(vocab=258).write(folder / "out", ["unified"])
    return ["run", "out/model.onnx", "--input", "input_ids=x.json"]


READS = (a_spec, a_config, an_index, modules, a_recording, a_lock, a_text_beside, an_input)


@pytest.mark.parametrize("how", SPOIL)
@pytest.mark.parametrize("read", READS)
def test_files_beside(tmp_path: Path, read: Callable[[Path], list[str]], how: str) -> None:
    command = read(tmp_path)
    spoil(tmp_path / "x.json", how)
    done = flowc(*command, cwd=tmp_path)
    if how == "too_deep" and read is a_text_beside:
        done.refused(2)
        return
    assert done.code in (2, 3), (done.code, done.err[-1500:])
    assert done.err.startswith("error["), done.err[:500]
    assert done.peak < 1e9


def test_a_prompt_without_an_end(chat: Path, tmp_path: Path) -> None:
    done = flowc("run", chat / "model.onnx", "--prompt", "-", cwd=tmp_path, shell="exec < /dev/zero")
    done.refused(2, "bad-prompt")
    assert done.peak < 1e9


NPY: dict[str, bytes] = {
    "tokens": b"{'descr': '<i8', 'fortran_order': False, 'shape': (1, 3L), }",
    "brackets": b"(" * 300,
    "negative": b"{'descr': '<i8', 'fortran_order': False, 'shape': (-1, 3), }",
    "huge": b"{'descr': '<i8', 'fortran_order': False, 'shape': (4611686018427387904, 1), }",
    "beyond 64 bits": b"{'descr': '<i8', 'fortran_order': False, 'shape': (99999999999999999999,), }",
    "truth": b"{'descr': '<i8', 'fortran_order': False, 'shape': (True, 3), }",
    "objects": b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
    "comma": b"{'descr': '<i8,', 'fortran_order': False, 'shape': (1,), }",
    "a type": b"{'descr': '4611686018427387904i8', 'fortran_order': False, 'shape': (1,), }",
    "no end": b"{'descr': '<i8', 'fortran_order': False, 'shape': (1, 3), ",
    "empty": b"",
    "zero": b"{'descr': '<i8', 'fortran_order': False, 'shape': (0, 4611686018427387904, 8), }",
}


@pytest.mark.parametrize("name", NPY)
def test_headers_of_arrays(tmp_path: Path, name: str) -> None:
    header = NPY[name]
    path = tmp_path / "x.npy"
    path.write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + bytes(24))
    with pytest.raises(Unreadable):
        read_npy(path)


def test_arrays_are_numpys(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    kinds: dict[str, tuple[int, ...]] = {"<f4": (), ">f8": (3, 4), "i1": (0, 2), "?": (5,), "<f2": (2, 3, 4)}
    arrays: dict[str, Any] = {k: np.asarray(rng.normal(size=shape) * 9).astype(k) for k, shape in kinds.items()}
    for name, array in arrays.items():
        for laid in (array, np.asfortranarray(array)):
            np.save(tmp_path / "x.npy", laid)
            got = read_npy(tmp_path / "x.npy")
            assert got.dtype == array.dtype
            np.testing.assert_array_equal(got, array, err_msg=name)
    savers: tuple[Any, ...] = (np.savez, np.savez_compressed)
    for save in savers:
        save(tmp_path / "x.npz", **arrays)
        for name, got in read_npz(tmp_path / "x.npz").items():
            np.testing.assert_array_equal(got, arrays[name])
    assert reading.MAX_SIDE_FILE < 1 << 30
