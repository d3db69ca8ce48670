"""The tokenizer cases of shared/reports: the ids that HuggingFace gave, as their output.txt has them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.cli.calling import flowc

CHATS = {
    "added_tokens_json": ["model"],
    "special_tokens_map": ["model"],
    "template_places": ["model_dict", "model_folder"],
}


@pytest.mark.parametrize(("case", "model"), [(case, model) for case, models in CHATS.items() for model in models])
def test_a_chat_has_the_ids_of_huggingface(tmp_path: Path, shared: Path, case: str, model: str) -> None:
    folder = shared / "reports" / case
    said = (folder / "output.txt").read_text(encoding="utf-8")
    part = said.partition(f"== {model.removeprefix('model_')}\n")[2] or said
    found = re.search(r"ids  (\[.*?\])", part)
    assert found is not None
    assert flowc("import", folder / model, "-o", tmp_path / "m.yaml").code == 0
    assert flowc("build", tmp_path / "m.yaml", "-o", tmp_path / "out" / "model.onnx").code == 0
    answer = flowc("run", tmp_path / "out", "--prompt", "hello the user", "-n", 1, "--json").json()
    assert answer["prompt_ids"] == json.loads(found[1])


def test_templates_without_a_default_are_refused_by_name(tmp_path: Path, shared: Path) -> None:
    folder = shared / "reports" / "template_places" / "model_no_default"
    assert flowc("import", folder, "-o", tmp_path / "m.yaml").code == 0
    built = flowc("build", tmp_path / "m.yaml", "-o", tmp_path / "out" / "model.onnx")
    assert "note: the chat templates are chat, tool_use, and none is the default" in built.stderr
    called = flowc("run", tmp_path / "out", "--prompt", "hello", "--json")
    assert called.code == 2
    assert "chat, tool_use" in called.diagnostics()[0]["message"]


@pytest.mark.parametrize(("case", "ids"), [("bert_do_lower_case", [2, 59, 61, 3])])
def test_an_encoder_has_the_ids_of_huggingface(tmp_path: Path, shared: Path, case: str, ids: list[int]) -> None:
    from flowc.build import manifest
    from flowc.runtime.tokenizer import Tokenizer

    folder = shared / "reports" / case
    assert str(ids) in (folder / "output.txt").read_text(encoding="utf-8").splitlines()[0]
    assert flowc("import", folder / "model", "-o", tmp_path / "m.yaml").code == 0
    assert flowc("build", tmp_path / "m.yaml", "-o", tmp_path / "out" / "model.onnx").code == 0
    assert Tokenizer.load(manifest.load(tmp_path / "out")).encode("Hello world") == ids


def test_a_vocabulary_alone_is_converted_and_one_that_cannot_be_is_named(tmp_path: Path, shared: Path) -> None:
    folder = shared / "reports" / "slow_tokenizer_only" / "model"
    assert flowc("import", folder, "-o", tmp_path / "m.yaml").code == 0
    built = flowc("build", tmp_path / "m.yaml", "-o", tmp_path / "out" / "model.onnx")
    assert "note: tokenizer.json is made of vocab.txt" in built.stderr
    assert flowc("run", tmp_path / "out", "--prompt", "hello world").code == 0
