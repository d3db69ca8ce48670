"""What sentence-transformers does to a text first is done by `flowc run`, and stands in the manifest."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flowc.build import manifest
from flowc.build.compiled import Request
from flowc.compile import build, compile_file
from flowc.errors import SpecError
from flowc.importers import import_checkpoint
from flowc.runtime.tokenizer import Tokenizer
from tests.cli.calling import flowc
from tests.oracle_io import ROOT
from tests.tokenizer.cases import WORDS, bert

MODULES = [{"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
           for i, (path, kind) in enumerate((("", "Transformer"), ("1_Pooling", "Pooling")))]  # fmt: skip


def sentence_folder(folder: Path, transformer: Any = None, whole: Any = None, below: str = "", **pooling: Any) -> Path:
    """A folder of sentence-transformers around a small BERT; `below` puts the transformer into a folder of its own."""
    inner = folder / below
    shutil.copytree(ROOT / "golden" / "oracles" / "bert_base_like", inner, ignore=shutil.ignore_patterns("*.npz"))
    (inner / "tokenizer.json").write_text(json.dumps(bert(False)), encoding="utf-8")
    modules = [{**MODULES[0], "path": below}, MODULES[1]]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (folder / "1_Pooling").mkdir()
    chosen = {"word_embedding_dimension": 48, "pooling_mode_mean_tokens": True, **pooling}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(chosen), encoding="utf-8")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 40}
    (inner / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    if transformer is not None:
        (inner / "sentence_bert_config.json").write_text(json.dumps(transformer), encoding="utf-8")
    if whole is not None:
        (folder / "config_sentence_transformers.json").write_text(json.dumps(whole), encoding="utf-8")
    return folder


def made(folder: Path, out: Path) -> manifest.Manifest:
    """The build of a folder."""
    spec = out.parent / "model.yaml"
    spec.write_text(import_checkpoint(folder).text(out.parent), encoding="utf-8")
    build(compile_file(spec, Request()), out / "model.onnx", verify="off")
    return manifest.load(out)


PROMPTS = {"prompts": {"query": "hello ", "none": ""}, "default_prompt_name": "query"}
H, E, HELLO, WORLD = (WORDS.index(w) for w in ("h", "[UNK]", "hello", "world"))


@pytest.mark.parametrize("below", ["", "0_Transformer"])
@pytest.mark.parametrize(
    ("transformer", "whole", "text", "expected"),
    [
        ({"do_lower_case": False, "max_seq_length": 32}, None, "HELLO world", "HELLO world"),
        ({"do_lower_case": True, "max_seq_length": 32}, None, " HELLO world ", "hello world"),
        ({"do_lower_case": False}, PROMPTS, "world", "hello world"),
        ({"do_lower_case": True}, {**PROMPTS, "default_prompt_name": None}, "World", "world"),
        (None, {**PROMPTS, "default_prompt_name": "none"}, " world", "world"),
    ],
)
def test_the_text_is_made_ready(
    tmp_path: Path, transformer: Any, whole: Any, text: str, expected: str, below: str
) -> None:
    """A prompt before it, spaces at the ends off, lower case; as SentenceTransformer.encode does it."""
    found = made(sentence_folder(tmp_path / "in", transformer, whole, below), tmp_path / "out")
    plain = Tokenizer(Tokenizer.load(found).inner)
    assert Tokenizer.load(found).encode(text) == plain.encode(expected)


@pytest.mark.parametrize(
    ("transformer", "length"), [({"max_seq_length": 4}, 4), ({}, 40), ({"max_seq_length": None}, 40)]
)
def test_the_text_is_cut(tmp_path: Path, transformer: Any, length: int) -> None:
    found = made(sentence_folder(tmp_path / "in", transformer), tmp_path / "out")
    ids = Tokenizer.load(found).encode("hello " * 60)
    assert ids == [2, *[HELLO] * (length - 2), 3]
    assert found.raw["text"] == {"prompt": "", "lower_case": False, "max_tokens": length, "prompts": {}}


def test_the_vector_is_that_of_the_text_made_ready(tmp_path: Path) -> None:
    folder = sentence_folder(tmp_path / "in", {"do_lower_case": True, "max_seq_length": 5}, PROMPTS)
    found = made(folder, tmp_path / "out")
    assert found.raw["text"]["prompts"] == PROMPTS["prompts"]
    for name, words in (
        ("text", ("--prompt", "WORLD world world")),
        ("ids", ("--ids", f"2,{HELLO},{WORLD},{WORLD},3")),
    ):
        assert flowc("run", tmp_path / "out", *words, "--output", tmp_path / f"{name}.npz").code == 0
    with np.load(tmp_path / "text.npz") as text, np.load(tmp_path / "ids.npz") as ids:
        np.testing.assert_array_equal(text["mean_pooled"], ids["mean_pooled"])
        np.testing.assert_allclose(text["mean_pooled"][0], text["last_hidden_state"][0].mean(axis=0), atol=1e-6)


def test_other_folders_take_texts_as_they_are(tmp_path: Path) -> None:
    found = made(sentence_folder(tmp_path / "in"), tmp_path / "out")
    assert found.text is None
    assert "text" not in found.raw


def test_a_prompt_that_is_read_and_not_pooled_is_refused(tmp_path: Path) -> None:
    folder = sentence_folder(tmp_path / "1", {}, PROMPTS, include_prompt=False)
    with pytest.raises(SpecError, match="'include_prompt'") as caught:
        import_checkpoint(folder)
    assert [d.code for d in caught.value.diagnostics] == ["unsupported-config"]
    import_checkpoint(sentence_folder(tmp_path / "2", {}, {"prompts": {"none": ""}}, include_prompt=False))
    import_checkpoint(sentence_folder(tmp_path / "3", {}, PROMPTS, include_prompt=True))


def test_the_shared_cases_are_what_sentence_transformers_gave(tmp_path: Path, shared: Path) -> None:
    """The vectors in output.txt were made by SentenceTransformer.encode."""
    said = (shared / "reports" / "sentence_transformers" / "output.txt").read_text(encoding="utf-8")
    for line in said.splitlines():
        name, numbers = line.split()[0], line.partition("[")[2].partition("]")[0].split()
        if name == "prompt":
            continue  # include_prompt: false
        out = tmp_path / name
        out.mkdir()
        made(shared / "reports" / "sentence_transformers" / f"model_{name}", out / "out")
        args = ("--prompt", "Hello world hello world", "--output", out / "v.npz")
        assert flowc("run", out / "out", *args).code == 0
        with np.load(out / "v.npz") as found:
            np.testing.assert_allclose(found["mean_pooled_l2"][0][:3], [float(n) for n in numbers], atol=1e-5)
