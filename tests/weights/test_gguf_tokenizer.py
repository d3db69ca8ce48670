from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any, cast

import jinja2
import pytest
from tokenizers import Tokenizer

from flowc.weights.gguf.checkpoint import GgufCheckpoint
from flowc.weights.gguf.pretokenizers import PRE_TOKENIZERS
from flowc.weights.gguf.tokenizer import tokenizer_config, tokenizer_json, write_tokenizer
from tests.weights.making import model_file, refused

MODELS = {
    "SmolLM2-135M-Instruct": "smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "gemma-3-270m": "gemma3-270m/gemma-3-270m-Q4_K_M.gguf",
}


@functools.cache
def metadata_of(model: str) -> dict[str, object]:
    return dict(GgufCheckpoint.open(model_file(MODELS[model])).metadata)


@functools.cache
def tokenizer_of(model: str) -> Tokenizer:
    return Tokenizer.from_str(json.dumps(tokenizer_json(metadata_of(model))))


@pytest.mark.parametrize("model", MODELS)
def test_ids_and_texts_are_huggingfaces(shared: Path, model: str) -> None:
    tokenizer = tokenizer_of(model)
    cases = json.loads((shared / "oracles" / "real" / f"{model}.tok.json").read_text())
    for case in cases:
        ids = tokenizer.encode(case["text"]).ids
        assert ids == case["ids"]
        assert tokenizer.decode(ids, skip_special_tokens=True) == case["decoded"]


@pytest.mark.parametrize("model", MODELS)
def test_recorded_prompts_get_their_ids_and_answers_their_text(shared: Path, model: str) -> None:
    tokenizer, config = tokenizer_of(model), tokenizer_config(metadata_of(model))
    recorded = json.loads((shared / "oracles" / "real" / f"{model}.json").read_text())
    for case in recorded["prompts"]:
        prompt: str = case["prompt"]
        if case["kind"] == "chat":
            environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True, autoescape=False)
            template = environment.from_string(str(config["chat_template"]))
            messages = [{"role": "user", "content": prompt}]
            prompt = template.render(messages=messages, add_generation_prompt=True)
        assert tokenizer.encode(prompt, add_special_tokens=case["kind"] != "chat").ids == case["input_ids"]
        assert tokenizer.decode(case["greedy_ids"], skip_special_tokens=False) == case["greedy_text"]


def test_files_are_written_and_load(tmp_path: Path) -> None:
    checkpoint = GgufCheckpoint.open(model_file(MODELS["SmolLM2-135M-Instruct"]))
    files = write_tokenizer(checkpoint, tmp_path)
    assert [file.name for file in files] == ["tokenizer.json", "tokenizer_config.json"]
    assert Tokenizer.from_file(str(files[0])).encode("Hello, world!").ids == [19556, 28, 905, 17]
    config = json.loads(files[1].read_text(encoding="utf-8"))
    assert config["bos_token"] == "<|im_start|>"
    assert config["eos_token"] == config["pad_token"] == "<|im_end|>"
    assert config["add_bos_token"] is False
    assert config["model_max_length"] == 8192
    assert "SmolLM" in config["chat_template"]
    again = write_tokenizer(checkpoint, tmp_path)
    assert [file.read_bytes() for file in again] == [file.read_bytes() for file in files]


BYTES = ["!", "a", "b", "c", "1", "2", "3", "4", "Ġ", "Ċ"]


def byte_level(pre: str | None = "gpt-2", **more: object) -> dict[str, object]:
    tokens = [*BYTES, "ab", "12", "Ġab", "<s>", "</s>", "<user>"]
    metadata: dict[str, object] = {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * (len(tokens) - 3) + [3, 3, 4],
        "tokenizer.ggml.merges": ["a b", "1 2", "Ġ ab"],
        "tokenizer.ggml.bos_token_id": tokens.index("<s>"),
        "tokenizer.ggml.eos_token_id": tokens.index("</s>"),
    }
    if pre is not None:
        metadata["tokenizer.ggml.pre"] = pre
    return {**metadata, **{f"tokenizer.ggml.{key}": value for key, value in more.items()}}


def sentencepiece(**more: object) -> dict[str, object]:
    pieces = {"<unk>": 2, "<s>": 3, "</s>": 3, "<0x62>": 6, "\u2581": 1, "a": 1, "c": 1, "\u2581a": 1, "ac": 1, "  ": 4}
    scores = [0.0, 0.0, 0.0, 0.0, -9.0, -9.0, -9.0, -1.0, -2.0, -1000.0]
    metadata: dict[str, object] = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": list(pieces),
        "tokenizer.ggml.token_type": list(pieces.values()),
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
    }
    return {**metadata, **{f"tokenizer.ggml.{key}": value for key, value in more.items()}}


def encode(metadata: dict[str, object], text: str) -> list[str]:
    return Tokenizer.from_str(json.dumps(tokenizer_json(metadata))).encode(text).tokens


def test_every_cut_loads_and_keeps_the_bytes() -> None:
    for name in PRE_TOKENIZERS:
        tokenizer = Tokenizer.from_str(json.dumps(tokenizer_json(byte_level(name, add_bos_token=False))))
        assert tokenizer.decode(tokenizer.encode("ab 12\n\n ab1234!  c").ids) == "ab 12\n\n ab1234!  c", name


def cuts(name: str, text: str) -> list[str]:
    """Where a rule cuts, as pieces of the text."""
    described = tokenizer_json(byte_level(name))
    pre = Tokenizer.from_str(json.dumps(described)).pre_tokenizer
    assert pre is not None
    return [
        text[begin:end] for _, (begin, end) in cast("list[tuple[str, tuple[int, int]]]", pre.pre_tokenize_str(text))
    ]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("gpt-2", ["I", "'ll", " pay", " 12345", "!!", "\n", "\n", "camelCase", "  ", " x"]),
        ("smollm", ["I", "'ll", " pay", " ", "1", "2", "3", "4", "5", "!!", "\n", "\n", "camelCase", "  ", " x"]),
        ("llama-bpe", ["I", "'ll", " pay", " ", "123", "45", "!!\n\n", "camelCase", "  ", " x"]),
        ("qwen2", ["I", "'ll", " pay", " ", "1", "2", "3", "4", "5", "!!\n\n", "camelCase", "  ", " x"]),
        ("gpt-4o", ["I'll", " pay", " ", "123", "45", "!!\n\n", "camel", "Case", "  ", " x"]),
        ("tekken", ["I", "'ll", " pay", " ", "1", "2", "3", "4", "5", "!!\n\n", "camel", "Case", "  ", " x"]),
        ("default", ["I", "'", "ll", " pay", " ", "123", "45", "!!", "\n", "\n", "camelCase", "  ", " x"]),
    ],
)
def test_each_rule_cuts_where_its_model_does(name: str, expected: list[str]) -> None:
    assert cuts(name, "I'll pay 12345!!\n\ncamelCase   x") == expected


def test_specials_are_found_in_the_text_and_hidden_on_request() -> None:
    tokenizer = Tokenizer.from_str(json.dumps(tokenizer_json(byte_level())))
    encoded = tokenizer.encode("ab<s>ab<user> ab")
    assert encoded.tokens == ["ab", "<s>", "ab", "<user>", "Ġab"]
    assert tokenizer.decode(encoded.ids) == "abab<user> ab"


def test_bos_and_eos_are_added_as_the_file_says() -> None:
    assert encode(byte_level(), "ab") == ["ab"]
    assert encode(byte_level(add_bos_token=True), "ab") == ["<s>", "ab"]
    assert encode(byte_level(add_bos_token=True, add_eos_token=True), "ab") == ["<s>", "ab", "</s>"]
    assert encode(byte_level("llama-bpe"), "ab") == ["<s>", "ab"]
    assert encode(byte_level("llama-bpe", add_bos_token=False), "ab") == ["ab"]


def test_sentencepiece_merges_by_score_and_falls_back_to_bytes() -> None:
    assert encode(sentencepiece(add_space_prefix=False), "ac") == ["<s>", "ac"]
    # "▁a" has a better score than "ac", wherever it stands
    assert encode(sentencepiece(), "ac") == ["<s>", "\u2581a", "c"]
    assert encode(sentencepiece(), "acb") == ["<s>", "\u2581a", "c", "<0x62>"]
    for prefix, text in ((True, "ac b ca"), (True, " ac"), (False, "ac b  ca"), (False, " ac")):
        described = tokenizer_json(sentencepiece(add_space_prefix=prefix))
        tokenizer = Tokenizer.from_str(json.dumps(described))
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_scores_decide_and_not_the_order_of_the_vocabulary() -> None:
    scores = [0.0, 0.0, 0.0, 0.0, -9.0, -9.0, -9.0, -2.0, -1.0, -1000.0]
    assert encode(sentencepiece(scores=scores), "ac") == ["<s>", "\u2581", "ac"]


@pytest.mark.parametrize(
    ("metadata", "code", "words"),
    [
        ({}, "unsupported-tokenizer", "None"),
        ({"tokenizer.ggml.model": "bert"}, "unsupported-tokenizer", "'bert'"),
        (byte_level("surprise"), "unsupported-tokenizer", "'surprise'"),
        (byte_level(tokens="abc"), "broken-tokenizer", "no list of texts"),
        (byte_level(tokens=[1]), "broken-tokenizer", "no list of texts"),
        (byte_level(token_type=[1]), "broken-tokenizer", "'token_type'"),
        (byte_level(merges=["a"]), "broken-tokenizer", "two tokens"),
        (byte_level(bos_token_id=99), "broken-tokenizer", "no token 99"),
        (byte_level(bos_token_id="<s>"), "broken-tokenizer", "no token <s>"),
        (sentencepiece(scores=[0.0]), "broken-tokenizer", "'scores'"),
        (sentencepiece(tokens=["a" * 10_000_000] * 10), "broken-tokenizer", "10000000 characters"),
        (byte_level(tokens=["a"] * 3_000_000), "broken-tokenizer", "3000000 tokens"),
        (sentencepiece(scores=None), "broken-tokenizer", "'scores'"),
        (sentencepiece(scores=["a"] * 10), "broken-tokenizer", "'scores'"),
    ],
)
def test_a_tokenizer_that_cannot_be_right_is_refused(metadata: dict[str, Any], code: str, words: str) -> None:
    with refused(code, words):
        tokenizer_json(metadata)


def test_a_merge_of_unknown_tokens_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    class Fake:
        metadata = byte_level(merges=["a z"])

    with refused("broken-tokenizer", "cannot be loaded"):
        write_tokenizer(cast(GgufCheckpoint, Fake()), tmp_path)
    assert not list(tmp_path.iterdir())
