"""Weights that are missing, broken or do not fit: code, tensor, stage and spec line; exit 3, and nothing is written."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from flowc.build.compiled import Request
from flowc.compile import compile_file
from tests.cli.calling import BASE, done, flowc, save_file, write_spec
from tests.weights.making import entry, safetensors_bytes, write_gguf

Tensors = dict[str, npt.NDArray[Any]]
FROM_FILE = BASE.replace("{random: 0}", "{file: w.safetensors}")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with sound weights, w.safetensors, and the spec that names them."""
    save_file(tensors(tmp_path), tmp_path / "w.safetensors")
    write_spec(tmp_path, FROM_FILE)
    return tmp_path


def tensors(folder: Path) -> Tensors:
    """Every tensor that BASE needs."""
    shapes = compile_file(write_spec(folder), Request()).usage.tensors
    values = np.random.default_rng(0)
    return {name: values.standard_normal(shape, dtype=np.float32) for name, (shape, _) in shapes.items()}


def refused(folder: Path, command: str = "build", most: int = 1) -> dict[str, Any]:
    """The one diagnostic (or the first of `most`) of a build or check that ends with 3 and writes nothing."""
    before = sorted(folder.iterdir())
    out = ("-o", folder / "out" / "model.onnx") if command == "build" else ()
    called = flowc(command, folder / "model.yaml", *out, "--json")
    assert called.code == 3, called
    assert sorted(folder.iterdir()) == before
    shown = flowc(command, folder / "model.yaml", *out)
    assert shown.stdout == ""
    assert shown.stderr.startswith("error[")
    diagnostics = called.diagnostics()
    assert len(diagnostics) == most or len(diagnostics) == 1, diagnostics
    return diagnostics[0]


def test_the_weights_that_the_cases_break_are_sound(folder: Path) -> None:
    done("build", folder / "model.yaml", "-o", folder / "out" / "model.onnx", "--verify", "off")


def change(name: str, value: Any) -> Callable[[Tensors], None]:
    def apply(found: Tensors) -> None:
        if value is None:
            del found[name]
        else:
            found[name] = np.zeros(value, np.float32)

    return apply


@pytest.mark.parametrize("command", ["check", "build"])
@pytest.mark.parametrize(
    ("code", "changed", "words", "line"),
    [
        ("missing-weight", change("norm.weight", None), "stage 'rms_norm' needs the weight 'norm.weight' [8]", 8),
        ("misshapen-weight", change("norm.weight", 7), "'norm.weight' [8], the file has [7]", 8),
        ("misshapen-weight", change("layers.1.mlp.down_proj.weight", (8, 15)), "[8, 16], the file has [8, 15]", 7),
        ("misshapen-weight", change("layers.0.mlp.up_proj.weight", (16, 8, 1)), "the file has [16, 8, 1]", 7),
        ("unused-weights", change("layers.2.mlp.weight", 3), "1 tensor of the weights: layers.2.mlp.weight", 3),
    ],
)
def test_tensors_that_do_not_fit(
    code: str, changed: Callable[[Tensors], None], words: str, line: int, command: str, folder: Path
) -> None:
    found = tensors(folder)
    changed(found)
    save_file(found, folder / "w.safetensors")
    write_spec(folder, FROM_FILE)
    diagnostic = refused(folder, command)
    assert diagnostic["code"] == code
    assert words in diagnostic["message"]
    assert diagnostic["line"] == line


def test_every_tensor_that_does_not_fit_is_told(folder: Path) -> None:
    found = tensors(folder)
    for name in ("norm.weight", "layers.0.self_attn.q_proj.weight"):
        del found[name]
    found["layers.1.mlp.up_proj.weight"] = found["norm.wight"] = np.zeros(1, np.float32)
    save_file(found, folder / "w.safetensors")
    write_spec(folder, FROM_FILE)
    called = flowc("check", folder / "model.yaml", "--json")
    assert called.code == 3
    assert sorted(d["code"] for d in called.diagnostics()) == ["misshapen-weight", "missing-weight", "missing-weight"]
    assert "did you mean 'norm.wight'?" in called.stdout


def test_spare_tensors_can_be_allowed(folder: Path) -> None:
    found = tensors(folder)
    found["rotary.0.inv_freq"] = np.zeros(2, np.float32)
    save_file(found, folder / "w.safetensors")
    write_spec(folder, FROM_FILE.replace("w.safetensors", 'w.safetensors, allow_unused: ["rotary.*.inv_freq"]'))
    done("check", folder / "model.yaml")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    ("name", "stage", "line"),
    [("layers.1.self_attn.v_proj.weight", "repeat.layers.1.llama_decoder", 7), ("norm.weight", "rms_norm", 8)],
)
def test_a_number_that_is_none(value: float, name: str, stage: str, line: int, folder: Path) -> None:
    found = tensors(folder)
    found[name].reshape(-1)[5] = value
    save_file(found, folder / "w.safetensors")
    write_spec(folder, FROM_FILE)
    diagnostic = refused(folder)
    assert diagnostic["code"] == "non-finite-weight"
    index = ", ".join(map(str, np.unravel_index(5, found[name].shape)))
    assert diagnostic["message"] == f"tensor '{name}' holds {np.float32(value)} at [{index}] (stage {stage})"
    assert diagnostic["line"] == line


@pytest.mark.parametrize("kept", [0, 7, 8, 100, -1, -100])
def test_safetensors_cut_short(kept: int, folder: Path) -> None:
    path = folder / "w.safetensors"
    path.write_bytes(path.read_bytes()[:kept])
    diagnostic = refused(folder, most=2 if kept == -100 else 1)
    assert diagnostic["code"] in ("broken-safetensors", "truncated-weights")
    assert diagnostic["line"] == 3


@pytest.mark.parametrize(
    "content",
    [
        safetensors_bytes({"norm.weight": entry("F32", [8], 0, 2**62)}, bytes(32)),
        safetensors_bytes({"norm.weight": entry("F32", [9], 0, 32)}, bytes(32)),
        safetensors_bytes({"norm.weight": entry("F32", [2**40, 2**40], 0, 32)}, bytes(32)),
        safetensors_bytes({"norm.weight": entry("F32", [8], -32, 0)}, bytes(32)),
        safetensors_bytes({"a": entry("F32", [8], 0, 32), "b": entry("F32", [8], 16, 48)}, bytes(48)),
        safetensors_bytes(b'{"a": ', b""),
        safetensors_bytes({}, b"", length=2**60),
    ],
    ids=["beyond the end", "wrong size", "overflow", "negative", "overlap", "no json", "endless header"],
)
def test_a_header_that_lies(content: bytes, folder: Path) -> None:
    (folder / "w.safetensors").write_bytes(content)
    diagnostic = refused(folder)
    assert diagnostic["code"] in ("broken-safetensors", "truncated-weights")
    assert "w.safetensors" in diagnostic["message"]
    assert diagnostic["line"] == 3


@pytest.mark.parametrize("kept", [3, 60, -1, -200])
def test_a_gguf_cut_short(kept: int, folder: Path) -> None:
    path = write_gguf(folder / "w.gguf", {"token_embd.weight": np.zeros((32, 64), np.float32)}, llama__block_count=1)
    path.write_bytes(path.read_bytes()[:kept])
    write_spec(folder, FROM_FILE.replace("w.safetensors", "w.gguf"))
    diagnostic = refused(folder)
    assert diagnostic["code"] in ("broken-gguf", "truncated-weights")
    assert diagnostic["line"] == 3


@pytest.mark.parametrize("kind", [None, "bert"])
def test_a_gguf_without_a_tokenizer_that_flowc_converts(kind: str | None, folder: Path) -> None:
    """It is built without one, and says so, or takes the files that lie beside it."""
    metadata = {} if kind is None else {"tokenizer__ggml__model": kind}
    write_gguf(folder / "w.gguf", tensors(folder), **metadata)
    write_spec(folder, FROM_FILE.replace("w.safetensors", "w.gguf"))
    built = done("build", folder / "model.yaml", "-o", folder / "out" / "model.onnx", "--verify", "off")
    assert ("no tokenizer comes along: the GGUF's tokenizer is of kind 'bert'" in built.stderr) == (kind is not None)
    assert not (folder / "out" / "tokenizer.json").exists()
    (folder / "tokenizer.json").write_text("{}")
    built = done("build", folder / "model.yaml", "-o", folder / "out" / "model.onnx", "--verify", "off")
    assert "note" not in built.stderr
    assert (folder / "out" / "tokenizer.json").read_text() == "{}"


def test_two_tokenizers_in_one_folder(folder: Path) -> None:
    """The second build says that it replaced the first one's tokenizer, and `run` does not take the wrong one."""
    for name in ("one", "other"):
        (folder / "tokenizer.json").write_text(f'{{"name": "{name}"}}')
        built = done("build", folder / "model.yaml", "-o", folder / "out" / f"{name}.onnx", "--verify", "off")
        assert ("tokenizer.json replaced the files of 'one'" in built.stderr) == (name == "other")
    called = flowc("run", folder / "out" / "one.onnx", "--prompt", "hi", "--json")
    assert called.diagnostics()[0]["code"] == "changed-file"
    assert "tokenizer.json" in called.stderr + called.stdout


def test_weights_that_are_not_there(folder: Path) -> None:
    (folder / "w.safetensors").unlink()
    diagnostic = refused(folder)
    assert diagnostic["code"] == "missing-file"
    assert diagnostic["line"] == 3
    assert "there are no weights at" in done("check", folder / "model.yaml").stderr


def test_weights_that_the_command_line_names(folder: Path) -> None:
    elsewhere = folder / "elsewhere"
    elsewhere.mkdir()
    (folder / "w.safetensors").rename(elsewhere / "other.safetensors")
    done("check", folder / "model.yaml", "--weights", elsewhere / "other.safetensors")
    called = flowc("check", folder / "model.yaml", "--weights", elsewhere / "absent.safetensors", "--json")
    assert (called.code, called.diagnostics()[0]["code"]) == (3, "missing-file")


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (BASE.replace("weights: {random: 0}\n", ""), "no-weights"),
        (FROM_FILE.replace("w.safetensors", "w.pt"), "unknown-weights-format"),
        (FROM_FILE.replace("w.safetensors", "~nobody-of-that-name/w.safetensors"), "missing-file"),
        (FROM_FILE.replace("w.safetensors", "x" * 300 + ".safetensors"), "unreadable-file"),
    ],
    ids=["none", "pickle", "no home", "too long a name"],
)
def test_weights_that_cannot_be_opened(text: str, code: str, folder: Path) -> None:
    (folder / "w.pt").write_bytes(b"")
    write_spec(folder, text)
    assert refused(folder)["code"] == code


def test_weights_that_cannot_be_used_in_place(folder: Path) -> None:
    out = folder / "out" / "model.onnx"
    called = flowc("build", folder / "model.yaml", "-o", out, "--in-place", "--json")
    assert called.code == 3
    assert called.diagnostics()[0]["code"] == "in-place"
    assert "does not lie in the output folder" in called.stdout


def test_a_manifest_names_no_path(folder: Path) -> None:
    done("build", folder / "model.yaml", "-o", folder / "out" / "model.onnx", "--verify", "off")
    manifest = (folder / "out" / "model.flowc.json").read_text()
    assert json.loads(manifest)["spec"]["weights"] == {}
    assert str(folder) not in manifest
