"""Ids equal AutoTokenizer's, whatever file of the folder says what decides them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flowc.build import manifest
from flowc.errors import SpecError
from flowc.runtime.tokenizer import Tokenizer
from flowc.tokenizer.assemble import assemble
from tests.runtime.tiny import TinyLlama
from tests.tokenizer.cases import CASES, MESSAGES, TEXTS, write

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
