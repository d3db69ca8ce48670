from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any, cast

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from flowc.errors import WeightsError
from flowc.weights import open_checkpoint
from flowc.weights.safetensors import SafetensorsCheckpoint
from tests.weights.making import entry, refused, safetensors_bytes

RNG = np.random.default_rng(7)
DTYPES = ["float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint32", "uint16", "uint8", "bool"]


def some(dtype: str, *shape: int) -> np.ndarray[Any, Any]:
    if dtype == "bool":
        return RNG.integers(0, 2, shape).astype(bool)
    if dtype.startswith(("int", "uint")):
        low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
        return RNG.integers(low, high, shape, dtype=dtype)
    return RNG.normal(size=shape).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_reads_as_the_reference_library_reads_it(tmp_path: Path, dtype: str) -> None:
    arrays = {"a": some(dtype, 5, 3), "scalar": some(dtype), "empty": some(dtype, 0, 4), "cube": some(dtype, 2, 3, 4)}
    safetensors.numpy.save_file(arrays, tmp_path / "model.safetensors", metadata={"format": "pt"})
    checkpoint = open_checkpoint(tmp_path)
    result = np.float32 if dtype.startswith("float") else np.int64
    assert set(checkpoint.tensors()) == set(arrays)
    for name, array in arrays.items():
        got = checkpoint.read(name)
        assert got.dtype == result
        assert got.shape == array.shape == checkpoint.tensors()[name].shape
        np.testing.assert_array_equal(got, array.astype(result))
    np.testing.assert_array_equal(checkpoint.read("a", slice(1, 4)), arrays["a"][1:4].astype(result))


def test_bfloat16_reads_as_ml_dtypes_converts_it(tmp_path: Path) -> None:
    every = np.arange(1 << 16, dtype=np.uint16).view(ml_dtypes.bfloat16).reshape(256, 256)
    file = tmp_path / "m.safetensors"
    file.write_bytes(safetensors_bytes({"w": entry("BF16", [256, 256], 0, 1 << 17)}, every.tobytes()))
    checkpoint = open_checkpoint(file)
    np.testing.assert_array_equal(checkpoint.read("w").view(np.uint32), every.astype(np.float32).view(np.uint32))
    rows = checkpoint.read("w", slice(100, 200))
    np.testing.assert_array_equal(rows, every[100:200].astype(np.float32))


def test_any_byte_but_zero_is_true(tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    file.write_bytes(safetensors_bytes({"w": entry("BOOL", [4], 0, 4)}, b"\0\1\2\xff"))
    assert open_checkpoint(file).read("w").tolist() == [0, 1, 1, 1]


def test_a_plain_tensor_lies_at_its_offset(tmp_path: Path) -> None:
    array = some("float16", 6, 2)
    safetensors.numpy.save_file({"pad": some("int8", 3), "w": array}, tmp_path / "m.safetensors")
    info = open_checkpoint(tmp_path / "m.safetensors").tensors()["w"]
    assert info.plain
    assert info.path == tmp_path / "m.safetensors"
    data = (tmp_path / "m.safetensors").read_bytes()[info.offset : info.offset + info.nbytes]
    np.testing.assert_array_equal(np.frombuffer(data, "<f2").reshape(6, 2), array)


def test_large_tensors_convert_in_pieces_without_seams(tmp_path: Path) -> None:
    array = some("float16", 3, 300_000)
    safetensors.numpy.save_file({"w": array}, tmp_path / "m.safetensors")
    checkpoint = open_checkpoint(tmp_path / "m.safetensors")
    np.testing.assert_array_equal(checkpoint.read("w"), array.astype(np.float32))
    np.testing.assert_array_equal(checkpoint.read("w", slice(1, 3)), array[1:3].astype(np.float32))


def sharded(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    arrays = {f"t{i}": some("float32", 2, i + 1) for i in range(5)}
    weight_map = {name: f"model-{int(name[1]) % 2}.safetensors" for name in arrays}
    for shard in set(weight_map.values()):
        chosen = {name: array for name, array in arrays.items() if weight_map[name] == shard}
        safetensors.numpy.save_file(chosen, folder / shard)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return arrays


def test_shards_are_one_checkpoint(tmp_path: Path) -> None:
    arrays = sharded(tmp_path)
    checkpoint = open_checkpoint(tmp_path)
    assert checkpoint.describe() == "safetensors, 2 files, 5 tensors"
    for name, array in arrays.items():
        np.testing.assert_array_equal(checkpoint.read(name), array)


def test_a_cache_of_symlinks_reads(tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "main"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    arrays = sharded(blobs)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(os.path.relpath(file, snapshot))
    np.testing.assert_array_equal(open_checkpoint(snapshot).read("t3"), arrays["t3"])


@pytest.mark.parametrize(
    ("weight_map", "words"),
    [
        ({"t0": "../model-0.safetensors"}, "lie in the folder"),
        ({"t0": "/tmp/model-0.safetensors"}, "lie in the folder"),
        ({"t0": "C:model-0.safetensors"}, "lie in the folder"),
        ({"t0": "model-0.bin"}, "not a safetensors file"),
        ({"t0": 3}, "not a safetensors file"),
        ({"nowhere": "model-0.safetensors"}, "does not"),
        ({}, "no 'weight_map'"),
        ([], "no 'weight_map'"),
    ],
)
def test_an_index_that_lies_is_refused(tmp_path: Path, weight_map: object, words: str) -> None:
    sharded(tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with refused("broken-index", words):
        open_checkpoint(tmp_path)


def test_all_missing_shards_are_named_at_once(tmp_path: Path) -> None:
    sharded(tmp_path)
    (tmp_path / "model-0.safetensors").unlink()
    (tmp_path / "model-1.safetensors").unlink()
    with refused("missing-file", "model-0.safetensors", "model-1.safetensors"):
        open_checkpoint(tmp_path)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    sharded(tmp_path)
    safetensors.numpy.save_file({"t0": some("float32", 1), "t1": some("float32", 1)}, tmp_path / "model-0.safetensors")
    with refused("broken-index", "'t1' lies in"):
        open_checkpoint(tmp_path)


GOOD = entry("F32", [2], 0, 8)
BROKEN: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "too few"),
    "seven bytes": (b"1234567", "too few"),
    "header beyond the file": (safetensors_bytes({"w": GOOD}, bytes(8), length=4000), "but ends after"),
    "huge header": (safetensors_bytes({}, b"", length=1 << 40), "the format allows"),
    "not JSON": (safetensors_bytes(b"{'w': 1}", b""), "not a JSON object"),
    "a list": (safetensors_bytes(b"[]", b""), "not a JSON object"),
    "not UTF-8": (safetensors_bytes(b'{"\xff": 1}', b""), "not a JSON object"),
    "a lone surrogate": (safetensors_bytes(b'{"\\ud800": 1}', b""), "not a JSON object"),
    "nested deeply": (safetensors_bytes(b'{"w":' + b" " * 200_000 + b"[" * 20_000, b""), "nested too deeply"),
    "a bracket bomb": (safetensors_bytes(b'{"w":[' + b"[]," * 10_000 + b"[]]}", b""), "not a list of tensors"),
    "a key twice": (
        safetensors_bytes(f'{{"w": {json.dumps(GOOD)}, "w": {json.dumps(GOOD)}}}'.encode(), bytes(8)),
        "key 'w' twice",
    ),
    "a field twice": (
        safetensors_bytes(b'{"w": {"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}', bytes(8)),
        "key 'dtype' twice",
    ),
    "unknown dtype": (safetensors_bytes({"w": entry("F33", [2], 0, 8)}, bytes(8)), "unknown dtype"),
    "lower-case dtype": (safetensors_bytes({"w": entry("f32", [2], 0, 8)}, bytes(8)), "unknown dtype"),
    "dtype of another kind": (safetensors_bytes({"w": {**GOOD, "dtype": 7}}, bytes(8)), "unknown dtype"),
    "negative dim": (safetensors_bytes({"w": entry("F32", [-2], 0, 8)}, bytes(8)), "whole numbers"),
    "float dim": (safetensors_bytes({"w": {**GOOD, "shape": [2.0]}}, bytes(8)), "whole numbers"),
    "boolean dim": (safetensors_bytes({"w": {**GOOD, "shape": [2, True]}}, bytes(8)), "whole numbers"),
    "shape is a number": (safetensors_bytes({"w": {**GOOD, "shape": 2}}, bytes(8)), "whole numbers"),
    "many dims": (safetensors_bytes({"w": {**GOOD, "shape": [1] * 65}}, bytes(8)), "whole numbers"),
    "overflowing shape": (safetensors_bytes({"w": entry("F32", [1 << 32, 1 << 32], 0, 0)}, b""), "bytes, but"),
    "one offset": (safetensors_bytes({"w": {**GOOD, "data_offsets": [0]}}, bytes(8)), "two whole numbers"),
    "offsets reversed": (safetensors_bytes({"w": entry("F32", [2], 8, 0)}, bytes(8)), "outside of its data"),
    "beyond the end": (safetensors_bytes({"w": entry("F32", [4], 0, 16)}, bytes(8)), "cut short"),
    "size and shape differ": (safetensors_bytes({"w": entry("F32", [3], 0, 8)}, bytes(8)), "takes 12"),
    "overlap": (safetensors_bytes({"a": GOOD, "b": entry("F32", [2], 4, 12)}, bytes(12)), "overlap"),
    "hole": (safetensors_bytes({"a": GOOD, "b": entry("F32", [2], 12, 20)}, bytes(20)), "belong to no tensor"),
    "hole in front": (safetensors_bytes({"a": entry("F32", [2], 4, 12)}, bytes(12)), "belong to no tensor"),
    "bytes left over": (safetensors_bytes({"a": GOOD}, bytes(12)), "4 bytes at its end"),
    "no entry": (safetensors_bytes({"w": 3}, b""), "something else than"),
    "a field too many": (safetensors_bytes({"w": {**GOOD, "more": 1}}, bytes(8)), "something else than"),
    "metadata not text": (safetensors_bytes({"__metadata__": {"a": 1}}, b""), "map of strings"),
}

STRICTER = {"a key twice", "many dims", "a field too many"}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_file_is_refused(tmp_path: Path, fault: str) -> None:
    data, words = BROKEN[fault]
    file = tmp_path / "m.safetensors"
    file.write_bytes(data)
    with refused("broken-safetensors", words, "m.safetensors"):
        open_checkpoint(file)
    if fault not in STRICTER:  # the reference library sees the fault too
        with pytest.raises(safetensors.SafetensorError):
            safetensors.safe_open(file, "np")


def test_all_faults_of_a_header_are_reported_at_once(tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    file.write_bytes(safetensors_bytes({"a": entry("F99", [2], 0, 8), "b": entry("F32", [-1], 0, 8)}, bytes(8)))
    with refused("broken-safetensors", "'a' the unknown dtype", "'b' a shape"):
        open_checkpoint(file)


def test_every_truncation_is_refused(tmp_path: Path) -> None:
    whole = safetensors_bytes({"a": GOOD, "b": entry("F32", [2], 8, 16)}, bytes(16))
    file = tmp_path / "m.safetensors"
    for length in range(len(whole)):
        file.write_bytes(whole[:length])
        with refused("broken-safetensors"):
            open_checkpoint(file)


def test_a_dtype_known_by_name_only_is_refused_when_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "m.safetensors"
    file.write_bytes(safetensors_bytes({"w": entry("F8_E4M3", [4], 0, 4), "v": entry("F32", [2], 4, 12)}, bytes(12)))
    checkpoint = open_checkpoint(file)
    assert checkpoint.read("v").tolist() == [0, 0]
    with refused("unsupported-dtype", "'w'", "f8_e4m3"):
        checkpoint.read("w")


def mutated(data: st.DataObject, whole: bytes) -> bytes:
    """The file with a few bytes set, or a span of digits replaced, which keeps more of them parseable."""
    file = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(file) - 1))
        file[at : at + 1] = data.draw(st.sampled_from([b"0", b"9", b"-", b'"', b"{", b"[", b",", b"", b" ", b"\xff"]))
    return bytes(file)


def check_mutated(folder: Path, data: st.DataObject) -> None:
    header = {"a": entry("F32", [2, 3], 0, 24), "b.c": entry("I64", [1], 24, 32), "d": entry("BF16", [4], 32, 40)}
    file = folder / "mutated.safetensors"
    file.write_bytes(mutated(data, safetensors_bytes(header, bytes(range(40)))))
    try:
        checkpoint = SafetensorsCheckpoint.open(file)
    except WeightsError:
        return
    reference = dict(cast("list[tuple[str, dict[str, Any]]]", safetensors.deserialize(file.read_bytes())))
    assert set(reference) == set(checkpoint.tensors())
    for name, info in checkpoint.tensors().items():
        assert tuple(reference[name]["shape"]) == info.shape
        assert bytes(reference[name]["data"]) == file.read_bytes()[info.offset : info.offset + info.nbytes]
        checkpoint.read(name)


def check_noise(folder: Path, noise: bytes) -> None:
    file = folder / "noise.safetensors"
    file.write_bytes(struct.pack("<Q", max(0, len(noise) - 8)) + b"{" + noise)
    with pytest.raises(WeightsError):
        SafetensorsCheckpoint.open(file)


@settings(max_examples=300)
@given(st.data())
def test_what_is_accepted_is_what_the_reference_library_accepts(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    check_mutated(tmp_path_factory.getbasetemp(), data)


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_noise_is_refused(tmp_path_factory: pytest.TempPathFactory, noise: bytes) -> None:
    check_noise(tmp_path_factory.getbasetemp(), noise)


@pytest.mark.slow
@settings(max_examples=50_000)
@given(st.data())
def test_very_many_mutations_are_read_alike_or_refused(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    check_mutated(tmp_path_factory.getbasetemp(), data)


@pytest.mark.slow
@settings(max_examples=50_000)
@given(st.binary(max_size=200))
def test_very_much_noise_is_refused(tmp_path_factory: pytest.TempPathFactory, noise: bytes) -> None:
    check_noise(tmp_path_factory.getbasetemp(), noise)
