"""Ids equal AutoTokenizer's, whatever file of the folder says what decides them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flowc.build import manifest
from flowc.errors import SpecError, WeightsError
from flowc.runtime.tokenizer import Tokenizer
from flowc.tokenizer.assemble import assemble
from tests.runtime.tiny import TinyLlama
from tests.tokenizer.cases import CASES, MESSAGES, TEXTS, bert, byte_level, write

REFERENCE: dict[str, Any] = json.loads(Path(__file__).with_name("reference.json").read_text(encoding="utf-8"))


def brought(folder: Path, out: Path) -> tuple[Tokenizer, int | None]:
    """The tokenizer that `flowc run` has of a folder after a build, and its end."""
    made = assemble(folder)
    there = {p.name: p.read_text(encoding="utf-8") for p in folder.iterdir() if p.is_file() and p.name != "config.json"}
    texts = there | {name: content.decode() for name, content in made.files.items()}
    return Tokenizer.load(manifest.load(TinyLlama().write(out, ["unified"], tokenizer=texts))), made.eos


@pytest.mark.parametrize("case", CASES)
def test_a_folder_gives_the_ids_of_transformers(tmp_path: Path, case: str) -> None:
    said = REFERENCE[case]
    tokenizer, eos = brought(write(CASES[case], tmp_path / "in"), tmp_path / "out")
    assert [tokenizer.encode(text) for text in TEXTS] == said["ids"]
    assert [tokenizer.encode(text, special_tokens=False) for text in TEXTS] == said["bare"]
    assert tokenizer.specials == said["named"]
    assert eos == said["eos"]
    if isinstance(said["chat"], dict):
        with pytest.raises(SpecError, match="none is the default"):
            tokenizer.encode_prompt(MESSAGES[0]["content"])
    elif said["chat"] is None:
        assert tokenizer.template is None
    else:
        assert tokenizer.render(MESSAGES) == said["chat"]


def test_what_a_build_writes_is_read_the_same_way_again(tmp_path: Path) -> None:
    """Files that flowc made are such that it has nothing to change in them."""
    for place, case in enumerate(CASES):
        folder = write(CASES[case], tmp_path / str(place))
        for name, content in assemble(folder).files.items():
            (folder / name).write_bytes(content)
        assert assemble(folder).files == {}, case


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"tokenizer.model": "x"}, "flowc needs tokenizer.json, not tokenizer.model (AutoTokenizer"),
        ({"vocab.json": {}, "config.json": {"model_type": "odd"}}, "flowc needs tokenizer.json, not vocab.json"),
        (
            {"tokenizer.json": byte_level(), "tokenizer_config.json": {"tokenizer_class": "T5Tokenizer"}},
            "taken as it is: what transformers' T5Tokenizer changes in it is not known to flowc",
        ),
        (
            {"tokenizer.json": byte_level(), "tokenizer_config.json": {"tokenizer_class": "BertTokenizer"}},
            "taken as it is: transformers' BertTokenizer takes no such vocabulary",
        ),
        (
            {"tokenizer.json": byte_level(), "tokenizer_config.json": {"split_special_tokens": True}},
            "split_special_tokens, which tokenizer.json cannot say",
        ),
        (
            {"tokenizer.json": bert(True),
             "tokenizer_config.json": {"tokenizer_class": "BertTokenizer", "do_lower_case": False}},
            "written as transformers' BertTokenizer has it: another normalizer",
        ),
        (
            {"tokenizer.json": byte_level(), "added_tokens.json": {f"<{i}>": 270 + i for i in range(7)}},
            "gets the tokens <0>, <1>, <2>, <3>, <4> and 2 more, which other files",
        ),
    ],
)  # fmt: skip
def test_what_a_build_says_of_a_tokenizer(tmp_path: Path, files: dict[str, Any], words: str) -> None:
    made = assemble(write({"config.json": {"model_type": "llama"}, **files}, tmp_path))
    assert any(words in note for note in made.notes), made.notes


def test_a_model_whose_vocabulary_is_not_converted_names_it(tmp_path: Path) -> None:
    path = TinyLlama().write(tmp_path, ["unified"], tokenizer={"tokenizer.model": "x"})
    with pytest.raises(SpecError, match=r"tokenizer\.model lies there, and flowc needs tokenizer\.json") as caught:
        Tokenizer.load(manifest.load(path))
    assert "save_pretrained" in caught.value.diagnostics[0].hint


@pytest.mark.parametrize(
    ("files", "code"),
    [
        ({"tokenizer.json": "{"}, "broken-tokenizer"),
        ({"tokenizer.json": "[1]"}, "broken-tokenizer"),
        ({"tokenizer.json": "[" * 100_000}, "broken-tokenizer"),
        ({"tokenizer.json": byte_level(), "tokenizer_config.json": {"eos_token": 3}}, "broken-tokenizer"),
        (
            {"tokenizer.json": byte_level(), "tokenizer_config.json": {"extra_special_tokens": [None]}},
            "broken-tokenizer",
        ),
        ({"tokenizer.json": byte_level(), "added_tokens.json": {"<a>": "many"}}, "broken-tokenizer"),
        ({"tokenizer.json": {"model": {}}, "added_tokens.json": {"<a>": 5}}, "broken-tokenizer"),
        ({"tokenizer.json": "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"}, "lfs-pointer"),
    ],
)
def test_files_that_cannot_be_read_are_named(tmp_path: Path, files: dict[str, Any], code: str) -> None:
    with pytest.raises(WeightsError) as caught:
        assemble(write({"config.json": {"model_type": "llama"}, **files}, tmp_path))
    assert [d.code for d in caught.value.diagnostics] == [code]
