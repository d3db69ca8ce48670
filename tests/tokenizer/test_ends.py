"""One list of end tokens, made at build: manifest, metadata of every graph, and what `flowc run` stops at."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import onnx
import pytest

from flowc.build.manifest import load
from flowc.errors import WeightsError
from flowc.importers import import_checkpoint
from flowc.tokenizer.ends import gguf_ends
from tests.cli.calling import flowc
from tests.importers.making_gguf import convert
from tests.oracle_io import ROOT
from tests.runtime.checkpoints import built, hub_folder
from tests.runtime.tiny import TinyLlama
from tests.tokenizer.cases import byte_level

MODEL = TinyLlama(vocab=280, eos=(2,))


def ends(out: Path) -> list[int]:
    """The manifest's list, after a look at every graph's metadata."""
    manifest = load(out)
    for record in manifest.graphs.values():
        model = onnx.load(str(out / record.file), load_external_data=False)
        said = {p.key: p.value for p in model.metadata_props}
        assert said.get("eos_token_id", "") == ",".join(map(str, manifest.model.eos))
    return list(manifest.model.eos)


@pytest.mark.parametrize(
    ("config", "files", "expected"),
    [
        ({}, {}, [2]),
        ({"eos_token_id": [2, 7]}, {"generation_config.json": {"eos_token_id": 9}}, [2, 7, 9]),
        ({"eos_token_id": None}, {"generation_config.json": {"eos_token_id": [9, 5, 9]}}, [9, 5]),
        ({}, {"tokenizer.json": byte_level(), "tokenizer_config.json": {"eos_token": "</s>"}}, [2, 1]),
        ({}, {"tokenizer.json": byte_level(), "tokenizer_config.json": {"eos_token": "<|new|>"}}, [2, 270]),
        ({"vocab_size": 270}, {"tokenizer.json": byte_level(), "tokenizer_config.json": {"eos_token": "<|new|>"}}, [2]),
        ({"eos_token_id": -1, "pad_token_id": -1, "bos_token_id": -1}, {}, []),
        ({"eos_token_id": [-1, 4]}, {}, [4]),
    ],
)
def test_the_ends_are_those_of_all_files(
    tmp_path: Path, config: dict[str, Any], files: dict[str, Any], expected: list[int]
) -> None:
    model = TinyLlama(vocab=config.get("vocab_size", MODEL.vocab))
    folder = hub_folder(tmp_path / "in", model, **config)
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    built(folder, tmp_path / "out")
    assert ends(tmp_path / "out") == expected
    assert flowc("verify", tmp_path / "out").code == 0


def test_ids_and_prompts_end_at_the_same_tokens(tmp_path: Path) -> None:
    folder = hub_folder(tmp_path / "in", MODEL)
    prompt = [5, 6, 7]
    expected = MODEL.greedy(prompt, 12)
    end = expected[4]
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2, end]}), encoding="utf-8")
    (folder / "tokenizer.json").write_text(json.dumps(byte_level()), encoding="utf-8")
    built(folder, tmp_path / "out")
    said = flowc("run", tmp_path / "out", "--ids", "5,6,7", "-n", 12, "--json").json()
    assert said["ids"] == expected[: expected.index(end) + 1]
    assert said["stopped"] == "eos"
    for text in ("hello", "the user", "x"):
        said = flowc("run", tmp_path / "out", "--prompt", text, "-n", 12, "--json").json()
        answer = MODEL.greedy(said["prompt_ids"], 12)
        stops = [i for i, token in enumerate(answer) if token in (2, end)]
        assert said["ids"] == (answer[: stops[0] + 1] if stops else answer)


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"eos_token_id": 1}, [1]),
        ({"eos_token_id": 1, "eot_token_id": 4, "eom_token_id": 3}, [1, 4, 3]),
        ({"eos_token_id": 1, "tokens": ["a", "</s>", "<end_of_turn>", "b", "<|eot_id|>"]}, [1, 2, 4]),
        ({"tokens": ["<|im_end|>", "<|endoftext|>"]}, [0, 1]),
        ({"tokens": ["<|end|>", "<|return|>", "<|call|>"]}, [1, 2]),
        ({"tokens": ["<|end|>", "x"]}, [0]),
        ({}, []),
    ],
)
def test_what_ends_a_text_in_llama_cpp(metadata: dict[str, Any], expected: list[int]) -> None:
    assert gguf_ends({f"tokenizer.ggml.{key}": value for key, value in metadata.items()}) == expected


@pytest.mark.parametrize("told", [True, False])
def test_a_gguf_whose_turn_ends_otherwise(tmp_path: Path, told: bool) -> None:
    """Gemma's files: eos is <eos>, a turn ends with <end_of_turn>, told by a key or by the token's name alone."""
    words = ["<pad>", "<eos>", "<bos>", "<unk>", *(f"w{i}" for i in range(92)), "<end_of_turn>", "w"]
    tokens = {
        "tokenizer.ggml.model": "llama", "tokenizer.ggml.tokens": words, "tokenizer.ggml.scores": [0.0] * len(words),
        "tokenizer.ggml.token_type": [3] * 4 + [1] * 92 + [3, 1], "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.bos_token_id": 2, "tokenizer.ggml.unknown_token_id": 3,
        **({"tokenizer.ggml.eot_token_id": 96} if told else {}),
    }  # fmt: skip
    source = ROOT / "golden" / "oracles" / "gemma3_270m_like"
    file = convert(source, tmp_path / "in.gguf")
    from gguf import GGUFReader

    from tests.weights.making import write_gguf

    reader = GGUFReader(file)
    own = {
        f.name.replace(".", "__"): f.contents() for f in reader.fields.values()
        if not f.name.startswith(("GGUF.", "general.architecture"))
    }  # fmt: skip
    raw = {t.name: t.data for t in reader.tensors}
    write_gguf(tmp_path / "model.gguf", raw, "gemma3", **own, **{k.replace(".", "__"): v for k, v in tokens.items()})
    spec = tmp_path / "model.yaml"
    spec.write_text(import_checkpoint(tmp_path / "model.gguf").text(tmp_path), encoding="utf-8")
    from flowc.build.compiled import Request
    from flowc.compile import build, compile_file

    build(compile_file(spec, Request()), tmp_path / "out" / "model.onnx", verify="off")
    assert ends(tmp_path / "out") == [1, 96]
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert generation == {"eos_token_id": [1, 96]}


def test_a_broken_generation_config_is_told_at_build(tmp_path: Path) -> None:
    folder = hub_folder(tmp_path / "in", MODEL)
    (folder / "generation_config.json").write_text("{", encoding="utf-8")
    with pytest.raises(WeightsError, match=r"generation_config\.json"):
        built(folder, tmp_path / "out")


def test_a_tokenizer_made_beside_its_source_has_a_name_of_its_own(tmp_path: Path) -> None:
    """A build into the weights' folder changes no file that was there."""
    folder = hub_folder(tmp_path / "in", MODEL)
    texts = {
        "tokenizer.json": json.dumps(byte_level()), "added_tokens.json": json.dumps({"<|new|>": 270}),
        "tokenizer_config.json": json.dumps({"eos_token": "<|new|>"}),
    }  # fmt: skip
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    built(folder, folder)
    assert {name: (folder / name).read_text(encoding="utf-8") for name in texts} == texts
    said = flowc("run", folder / "model.onnx", "--prompt", "a<|new|>", "-n", 1, "--json").json()
    assert said["prompt_ids"][-1] == 270
    assert flowc("verify", folder / "model.onnx").code == 0
