from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from flowc.errors import Source, Span, WeightsError
from flowc.weights import check_finite, find_tokenizer_files, open_checkpoint
from flowc.weights.files import SourceFile
from tests.weights.making import refused, write_gguf


def checkpoint_file(folder: Path, kind: str) -> Path:
    arrays = {"model.norm.weight": np.arange(4096, dtype=np.float32).reshape(64, 64)}
    file = folder / f"model.{kind}"
    if kind == "safetensors":
        safetensors.numpy.save_file(arrays, file)
    elif kind == "npz":
        np.savez(file, allow_pickle=False, **arrays)
    else:
        write_gguf(file, {"output_norm.weight": arrays["model.norm.weight"]}, arch="qwen2")
    return file


KINDS = ["safetensors", "gguf", "npz"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_shrinks_after_opening_gives_an_error_and_not_a_crash(tmp_path: Path, kind: str) -> None:
    file = checkpoint_file(tmp_path, kind)
    checkpoint = open_checkpoint(file)
    assert checkpoint.read("model.norm.weight")[1, 0] == 64
    os.truncate(file, file.stat().st_size - 8192)
    with refused("changed-weights", file.name):
        checkpoint.read("model.norm.weight")


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_that_is_replaced_or_vanishes_gives_an_error(tmp_path: Path, kind: str) -> None:
    file = checkpoint_file(tmp_path, kind)
    checkpoint = open_checkpoint(file)
    (tmp_path / "new").write_bytes(file.read_bytes())
    (tmp_path / "new").replace(file)
    with refused("changed-weights"):
        checkpoint.read("model.norm.weight")
    file.unlink()
    with refused("missing-file"):
        checkpoint.read("model.norm.weight")


def test_a_file_that_shrinks_while_it_is_read_gives_an_error(tmp_path: Path) -> None:
    file = tmp_path / "data"
    file.write_bytes(bytes(100))
    short = SourceFile(file, 200, SourceFile.open(file).identity)  # as if the size had been larger at the check
    with refused("changed-weights"):
        short.read(0, 200)


def test_a_read_beyond_the_end_allocates_nothing(tmp_path: Path) -> None:
    (tmp_path / "data").write_bytes(bytes(10))
    with refused("truncated-weights", "ends"):
        SourceFile.open(tmp_path / "data").read(0, 1 << 60)


@pytest.mark.parametrize("kind", KINDS)
def test_an_unknown_tensor_is_named_with_the_nearest(tmp_path: Path, kind: str) -> None:
    with refused("missing-tensor", "model.norm.wieght", "did you mean 'model.norm.weight'?"):
        open_checkpoint(checkpoint_file(tmp_path, kind)).read("model.norm.wieght")


@pytest.mark.parametrize("kind", KINDS)
def test_rows_out_of_range_are_clipped_like_a_list(tmp_path: Path, kind: str) -> None:
    checkpoint = open_checkpoint(checkpoint_file(tmp_path, kind))
    assert checkpoint.read("model.norm.weight", slice(60, 99)).shape == (4, 64)
    assert checkpoint.read("model.norm.weight", slice(-2, None))[0, 0] == 62 * 64
    assert checkpoint.read("model.norm.weight", slice(9, 3)).shape == (0, 64)


def test_a_fifo_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "m.safetensors")
    with refused("unreadable-file", "not a regular file"):
        open_checkpoint(tmp_path / "m.safetensors")


def test_errors_point_at_the_place_that_named_the_file(tmp_path: Path) -> None:
    source = Source("model.yaml", "weights: {file: gone.safetensors}\n")
    span = Span(source, 1, 17, 1, 33)
    with pytest.raises(WeightsError) as caught:
        open_checkpoint(tmp_path / "gone.safetensors", span=span)
    assert [(d.code, d.span) for d in caught.value.diagnostics] == [("missing-file", span)]
    assert caught.value.exit_code == 3


@pytest.mark.parametrize(
    ("names", "code", "words"),
    [
        ([], "missing-file", "no model.safetensors"),
        (["pytorch_model.bin"], "missing-file", "pickles"),
        (["a.safetensors", "b.safetensors"], "ambiguous-weights", "b.safetensors"),
    ],
)
def test_a_folder_without_one_checkpoint_is_refused(tmp_path: Path, names: list[str], code: str, words: str) -> None:
    for name in names:
        (tmp_path / name).touch()
    with refused(code, words):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("gone.gguf", "missing-file"),
        ("gone.npz", "missing-file"),
        ("gone.index.json", "missing-file"),
        ("gone", "missing-file"),
        ("a\0b.gguf", "unreadable-file"),
        ("weights.pt", "unknown-weights-format"),
        ("weights.txt", "unknown-weights-format"),
    ],
)
def test_what_is_no_checkpoint_is_refused(tmp_path: Path, name: str, code: str) -> None:
    (tmp_path / "weights.pt").touch()
    (tmp_path / "weights.txt").touch()
    with refused(code):
        open_checkpoint(tmp_path / name)


def test_a_folder_with_one_odd_name_is_understood(tmp_path: Path) -> None:
    checkpoint_file(tmp_path, "gguf")
    assert open_checkpoint(tmp_path).describe() == "gguf, qwen2, 1 file, 1 tensors"


def test_tokenizer_files_are_found_beside_the_weights(tmp_path: Path) -> None:
    for name in ("tokenizer.json", "vocab.txt", "generation_config.json", "config.json", "model.safetensors"):
        (tmp_path / name).touch()
    found = [tmp_path / name for name in ("tokenizer.json", "generation_config.json", "vocab.txt")]
    assert find_tokenizer_files(tmp_path) == found
    assert find_tokenizer_files(tmp_path / "model.safetensors") == found


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("position", [0, 1_048_575, 1_048_576, 2_999_999])
def test_a_value_that_is_not_finite_is_named_with_its_index(value: float, position: int) -> None:
    array = np.ones((3000, 1000), np.float32)
    check_finite(array, "w")
    array.reshape(-1)[position] = value
    row, column = divmod(position, 1000)
    with refused("non-finite-weight", f"tensor 'w' holds {value} at [{row}, {column}]"):
        check_finite(array, "w")


def test_large_finite_values_whose_sum_overflows_are_finite() -> None:
    check_finite(np.full(100, 3e38, np.float32), "w")
    check_finite(np.array([3e38, -3e38, 3e38, 3e38], np.float32), "w")
    check_finite(np.arange(5), "w")
    check_finite(np.zeros((0, 4), np.float32), "w")
    check_finite(np.array(3, np.float32), "w")
