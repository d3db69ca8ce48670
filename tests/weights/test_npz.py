from __future__ import annotations

import contextlib
import io
import tokenize
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowc.errors import WeightsError
from flowc.weights import open_checkpoint
from flowc.weights.npz import NpzCheckpoint
from tests.weights.making import refused

RNG = np.random.default_rng(3)


def npy(array: np.ndarray[Any, Any]) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=False)
    return stream.getvalue()


def with_header(text: str, data: bytes = b"") -> bytes:
    header = text.encode()
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


def archive(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as made:
        for name, data in members.items():
            made.writestr(name, data)
    return path


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", ["<f8", "<f4", "<f2", ">f4", "<i8", "<i4", "u1", "?"])
def test_reads_what_numpy_writes(tmp_path: Path, save: Any, dtype: str) -> None:
    array = (RNG.normal(size=(7, 5, 3)) * 3).astype(dtype)
    save(tmp_path / "m.npz", w=array, fortran=np.asfortranarray(array), scalar=array[0, 0, 0], none=array[:0])
    checkpoint = open_checkpoint(tmp_path / "m.npz")
    result = np.float32 if array.dtype.kind == "f" else np.int64
    for name, expected in {"w": array, "fortran": array, "scalar": array[0, 0, 0], "none": array[:0]}.items():
        got = checkpoint.read(name)
        assert got.dtype == result
        assert got.flags.c_contiguous
        assert got.shape == checkpoint.tensors()[name].shape == expected.shape
        np.testing.assert_array_equal(got, expected.astype(result))
    for name in ("w", "fortran"):
        np.testing.assert_array_equal(checkpoint.read(name, slice(2, 5)), array[2:5].astype(result))


def test_large_arrays_convert_in_pieces_without_seams(tmp_path: Path) -> None:
    array = RNG.normal(size=(3, 800_000)).astype(np.float16)
    np.savez_compressed(tmp_path / "m.npz", w=array)
    checkpoint = open_checkpoint(tmp_path / "m.npz")
    np.testing.assert_array_equal(checkpoint.read("w"), array.astype(np.float32))
    np.testing.assert_array_equal(checkpoint.read("w", slice(1, 2)), array[1:2].astype(np.float32))


def test_objects_and_structures_are_refused_and_never_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "o.npz", allow_pickle=True, w=np.array([print], dtype=object))
    with refused("unsupported-dtype", "'w'"):
        open_checkpoint(tmp_path / "o.npz")
    for number, array in enumerate([np.array(["text"]), np.zeros(2, "c8"), np.zeros(2, "M8[s]"), np.zeros(2, "V2")]):
        np.savez(tmp_path / f"{number}.npz", allow_pickle=False, w=array)
        with refused("unsupported-dtype", "'w'"):
            open_checkpoint(tmp_path / f"{number}.npz")
    np.savez(tmp_path / "s.npz", allow_pickle=False, w=np.zeros(2, [("a", "f4")]))
    with refused("broken-npz", "simple type"):
        open_checkpoint(tmp_path / "s.npz")


HEADERS = {
    "not a literal": "{'descr': __import__('os').getpid()}",
    "not a map": "[1, 2]",
    "no shape": "{'descr': '<f4', 'fortran_order': False}",
    "negative": "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
    "boolean": "{'descr': '<f4', 'fortran_order': False, 'shape': (True,)}",
    "too long a number": "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "9" * 5000 + ",)}",
    "too many dims": "{'descr': '<f4', 'fortran_order': False, 'shape': (" + "1," * 65 + ")}",
    "unknown type": "{'descr': '<f3', 'fortran_order': False, 'shape': (1,)}",
    "unparseable type": "{'descr': '(((', 'fortran_order': False, 'shape': (1,)}",
    "deep": "(" * 5000,
    "long": " " * 20_000,
    "larger than the member": "{'descr': '<f4', 'fortran_order': False, 'shape': (1099511627776,)}",
    "smaller than the member": "{'descr': '<f4', 'fortran_order': False, 'shape': ()}",
}


@pytest.mark.parametrize("fault", HEADERS)
def test_a_broken_array_header_is_refused(tmp_path: Path, fault: str) -> None:
    file = archive(tmp_path / "m.npz", {"w.npy": with_header(HEADERS[fault], bytes(8))})
    with refused("broken-npz", "m.npz"):
        open_checkpoint(file)


@pytest.mark.parametrize(("fault", "error"), [("negative", None), ("boolean", None), ("deep", tokenize.TokenError)])
def test_numpys_own_reader_would_not_do(fault: str, error: type[Exception] | None) -> None:
    stream = io.BytesIO(with_header(HEADERS[fault]))
    assert np.lib.format.read_magic(stream) == (1, 0)
    with pytest.raises(error) if error is not None else contextlib.nullcontext():
        np.lib.format.read_array_header_1_0(stream)


def test_what_is_no_npz_is_refused(tmp_path: Path) -> None:
    whole = npy(np.zeros(4, np.float32))
    faults = {
        "noise": b"PK noise",
        "empty": b"",
        "later version": whole.replace(b"NUMPY\x01", b"NUMPY\x02"),
        "other member": whole,
        "bzip2": whole,
    }
    archive(tmp_path / "later version.npz", {"w.npy": faults["later version"]})
    archive(tmp_path / "other member.npz", {"../w.txt": whole})
    archive(tmp_path / "bzip2.npz", {"w.npy": whole}, zipfile.ZIP_BZIP2)
    for name in ("noise", "empty"):
        (tmp_path / f"{name}.npz").write_bytes(faults[name])
    for name in faults:
        with refused("broken-npz"):
            open_checkpoint(tmp_path / f"{name}.npz")


def test_a_name_twice_is_refused(tmp_path: Path) -> None:
    with warnings.catch_warnings(), zipfile.ZipFile(tmp_path / "m.npz", "w") as made:
        warnings.simplefilter("ignore", UserWarning)
        for value in (1, 2):
            made.writestr("w.npy", npy(np.full(3, value)))
    with refused("broken-npz", "twice"):
        open_checkpoint(tmp_path / "m.npz")


def test_a_size_that_the_zip_cannot_hold_is_refused(tmp_path: Path) -> None:
    header = with_header("{'descr': '|u1', 'fortran_order': False, 'shape': (1073741824,)}")
    file = archive(tmp_path / "m.npz", {"w.npy": header}, zipfile.ZIP_DEFLATED)
    data = bytearray(file.read_bytes())
    at = data.rindex(b"PK\x01\x02") + 24
    data[at : at + 4] = (len(header) + (1 << 30)).to_bytes(4, "little")
    file.write_bytes(data)
    with refused("broken-npz", "cannot hold"):
        open_checkpoint(file)


def test_a_flipped_bit_is_seen_by_the_checksum(tmp_path: Path) -> None:
    file = archive(tmp_path / "m.npz", {"w.npy": npy(np.arange(64, dtype=np.float32))})
    data = bytearray(file.read_bytes())
    data[300] ^= 1
    file.write_bytes(data)
    with refused("broken-npz", "CRC"):
        open_checkpoint(file).read("w")


def check_mutated(folder: Path, data: st.DataObject) -> None:
    members = {"a.npy": npy(np.arange(4.0)), "b.npy": npy(np.arange(6))}
    file = archive(
        folder / "mutated.npz", members, data.draw(st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED]))
    )
    whole = bytearray(file.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    file.write_bytes(whole[: data.draw(st.integers(len(whole) - 40, len(whole)))])
    try:
        checkpoint = NpzCheckpoint.open(file)
        for name, info in checkpoint.tensors().items():
            assert checkpoint.read(name).shape == info.shape
    except WeightsError:
        pass


@settings(max_examples=200)
@given(st.data())
def test_mutated_archives_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    check_mutated(tmp_path_factory.getbasetemp(), data)


@pytest.mark.slow
@settings(max_examples=50_000)
@given(st.data())
def test_very_many_mutations_are_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    check_mutated(tmp_path_factory.getbasetemp(), data)
