"""Prompts that are texts: the system message before them, and recordings of other ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers

from tests.cli.calling import done, flowc
from tests.oracle_io import ROOT
from tests.runtime.words import files

WORDS = ["<unk>", "say", "it", "briefly", "hello"]
CHAT = {"chat_template": "{% for m in messages %}{{ m.content }} {% endfor %}", "unk_token": "<unk>"}
SAY = 'text: "say it", steps: 2'


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """A case of a model whose tokenizer knows five words and whose template puts all messages in a row."""
    shutil.copytree(ROOT / "golden/oracles/llama_gqa4_bias", tmp_path / "model")
    inner = tokenizers.Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    for name, text in files(inner, CHAT).items():
        (tmp_path / "model" / name).write_text(text)
    path = tmp_path / "case.yaml"
    path.write_text(f"golden: 1\ncheckpoint: model\nprompts: [{{{SAY}, system: briefly}}]\n")
    return path


def test_a_system_message_stands_before_the_text(case: Path) -> None:
    done("golden", "record", case)
    [prompt] = json.loads(case.with_suffix(".json").read_text())["prompts"]
    assert [WORDS[i] for i in prompt["ids"]] == ["briefly", "say", "it"]
    assert (prompt["text"], prompt["system"]) == ("say it", "briefly")
    done("golden", "check", case, "--strict")


@pytest.mark.parametrize("other", ['text: "say hello", steps: 2, system: briefly', SAY, f"{SAY}, system: hello"])
def test_a_recording_of_another_text_is_none_of_this_case(other: str, case: Path) -> None:
    done("golden", "record", case)
    case.write_text(f"golden: 1\ncheckpoint: model\nprompts: [{{{other}}}]\n")
    refused = flowc("golden", "check", case)
    assert refused.code == 2
    assert "was recorded for other prompts" in refused.stderr


def test_ids_have_no_system_message(case: Path) -> None:
    case.write_text("golden: 1\ncheckpoint: model\nprompts: [{ids: [1], system: briefly}]\n")
    refused = flowc("golden", "check", case)
    assert refused.code == 2
    assert "a `system` message goes before a `text`, not before `ids`" in refused.stderr
