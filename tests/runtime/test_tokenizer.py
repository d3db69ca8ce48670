from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st

from flowc.build import manifest
from flowc.errors import SpecError, WeightsError
from flowc.runtime.tokenizer import Tokenizer
from flowc.weights.gguf.checkpoint import GgufCheckpoint
from flowc.weights.gguf.tokenizer import write_tokenizer
from tests.runtime.tiny import TinyLlama
from tests.runtime.words import byte_level, files, sentencepiece

CHATML = (
    "  {% for message in messages %}\n"
    "{{ '<s>' + message['role'] + ': ' + message['content'] + eos_token }}\n"
    "{% endfor %}\n"
    "{% if add_generation_prompt %}{{ '<s>assistant: ' }}{% endif %}"
)


def loaded(folder: Path, **beside: Any) -> Tokenizer:
    """A tokenizer as it is found beside a model."""
    inner = beside.pop("inner", None) or byte_level()
    texts = files(inner, beside.pop("config", None), **beside)
    return Tokenizer.load(manifest.load(TinyLlama().write(folder, ["unified"], tokenizer=texts)))


def streamed(tokenizer: Tokenizer, ids: list[int], prompt: list[int] | None = None) -> list[str]:
    stream = tokenizer.stream(prompt or [])
    return [*(stream.push(token) for token in ids), stream.finish()]


@given(text=st.text(max_size=12), before=st.text(max_size=4))
def test_a_stream_gives_the_text_in_whole_characters(text: str, before: str) -> None:
    tokenizer = Tokenizer(byte_level())
    ids = tokenizer.encode(text)
    assert len(ids) == len(text.encode())
    pieces = streamed(tokenizer, ids, tokenizer.encode(before))
    assert "".join(pieces) == text
    assert all("\ufffd" not in piece for piece in pieces) or "\ufffd" in text


def test_a_stream_holds_back_half_a_character() -> None:
    tokenizer = Tokenizer(byte_level())
    assert streamed(tokenizer, tokenizer.encode("a🙂é!")) == ["a", "", "", "", "🙂", "", "é", "!", ""]
    assert streamed(tokenizer, tokenizer.encode("a🙂")[:-1]) == ["a", "", "", "", "\ufffd"]
    assert streamed(tokenizer, [*tokenizer.encode("é")[:1], *tokenizer.encode("b")]) == ["", "\ufffdb", ""]


def test_a_stream_leaves_special_tokens_out() -> None:
    tokenizer = Tokenizer(byte_level())
    a, b = tokenizer.encode("ab")
    assert streamed(tokenizer, [0, a, 1, b, 1]) == ["", "a", "", "b", "", ""]


def test_a_stream_keeps_the_space_after_the_prompt() -> None:
    tokenizer = Tokenizer(sentencepiece())
    paris, is_, big, s = 2, 3, 4, 5
    assert tokenizer.decode([is_, big]) == "is big"
    assert streamed(tokenizer, [is_, big, s], [1, paris]) == [" is", " big", "s", ""]
    assert streamed(tokenizer, [is_, big], []) == ["is", " big", ""]


@given(text=st.text(st.characters(exclude_characters="\u2581 ", exclude_categories=["Cs"]), max_size=8))
def test_a_stream_of_fallback_bytes(text: str) -> None:
    tokenizer = Tokenizer(sentencepiece())
    ids = [7 + byte for byte in text.encode()]
    pieces = streamed(tokenizer, ids, [1, 2])
    assert "".join(pieces) == text
    assert all("\ufffd" not in piece for piece in pieces) or "\ufffd" in text


@pytest.mark.parametrize("before", ["\u4e2d\u4e2d\u4e2d", "\u00e9" * 5, "\u4e2d\u00e9\U0001f642\u00e9", "\ufffd"])
def test_a_prompt_that_ends_in_fallback_bytes(before: str) -> None:
    """The decoder turns a whole run of bytes that begins inside a character into U+FFFD."""
    tokenizer = Tokenizer(sentencepiece())
    prompt, ids = ([7 + byte for byte in text.encode()] for text in (before, "\u4e2d\u00e9"))
    assert streamed(tokenizer, ids, prompt) == ["", "", "\u4e2d", "", "\u00e9", ""]


def test_a_prompt_that_is_no_text_is_refused() -> None:
    with pytest.raises(SpecError, match="not Unicode text") as caught:
        Tokenizer(byte_level()).encode_prompt("ab\udcff")
    assert [d.code for d in caught.value.diagnostics] == ["bad-prompt"]


def test_padding_and_truncation_of_the_file_are_dropped(tmp_path: Path) -> None:
    inner = byte_level()
    inner.enable_padding(length=8)
    inner.enable_truncation(4)
    assert len(inner.encode("hello").ids) == 8
    assert len(loaded(tmp_path, inner=inner).encode("hello")) == 5


def test_a_prompt_without_a_template_is_the_text_itself(tmp_path: Path) -> None:
    tokenizer = loaded(tmp_path, inner=sentencepiece())
    assert tokenizer.encode_prompt("▁is") == tokenizer.encode_prompt("▁is", raw=True)
    assert tokenizer.encode_prompt("s") == [1, 5]
    with pytest.raises(SpecError, match="this model has none"):
        tokenizer.encode_prompt("s", system="be brief")


def test_a_prompt_in_the_chat_template(tmp_path: Path) -> None:
    config = {"eos_token": {"content": "<|end|>", "special": True}, "chat_template": CHATML}
    tokenizer = loaded(tmp_path, config=config)
    # trimmed blocks: neither the line ends nor the indentation of the template are part of the text
    text = "<s>system: be brief<|end|>\n<s>user: hi<|end|>\n<s>assistant: "
    assert tokenizer.render([{"role": "system", "content": "be brief"}, {"role": "user", "content": "hi"}]) == text
    ids = tokenizer.encode_prompt("hi", system="be brief")
    assert ids == tokenizer.encode(text, special_tokens=False)
    assert [i for i in ids if i < 2] == [0, 1, 0, 1, 0]
    assert tokenizer.encode_prompt("hi", raw=True) == tokenizer.encode("hi")
    with pytest.raises(SpecError, match="--raw leaves it out"):
        tokenizer.encode_prompt("hi", raw=True, system="be brief")


def test_the_template_adds_the_special_tokens_itself(tmp_path: Path) -> None:
    tokenizer = loaded(tmp_path, inner=sentencepiece(), chat_template_jinja="<s>{{ messages[0].content }}")
    assert tokenizer.encode_prompt("s") == [1, 5]


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ messages | tojson }}", '[{"role": "user", "content": "<é> & co"}]'),
        ("{{ messages[0] | tojson(indent=1) }}", '{\n "role": "user",\n "content": "<é> & co"\n}'),
        ("{{ strftime_now('%%') }}{{ bos_token is defined }}{{ tools is none }}", "%FalseTrue"),
        ("{% for i in range(9) %}{% if i == 2 %}{% break %}{% endif %}{{ i }}{% endfor %}", "01"),
        ("a{% generation %}{{ messages[0].role }}{% endgeneration %}b", "auserb"),
        ("{{ messages[0].content.split()[0].strip('<>') }}", "é"),
    ],
)
def test_what_templates_use(template: str, text: str) -> None:
    tokenizer = Tokenizer(byte_level(), template=template)
    assert tokenizer.render([{"role": "user", "content": "<é> & co"}]) == text


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('no system role here') }}", "no system role here"),
        ("{% if %}", "Expected an expression"),
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ ''.__class__.__mro__ }}", "unsafe"),
        ("{{ 1 / 0 }}", "division"),
        ("{{ 'a' + 1 }}", "concatenate"),
        ("{{ '{name}'.format() }}", "KeyError: 'name'"),
        ("{{ '{}'.format() }}", "IndexError"),
        ("{{ (1, 2) | dictsort }}", "AttributeError"),
        ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
        ("{{ 'a' * 10**18 }}", "MemoryError"),
    ],
)
def test_templates_that_refuse_or_fail(template: str, message: str) -> None:
    with pytest.raises(SpecError) as caught:
        Tokenizer(byte_level(), template=template).encode_prompt("hi")
    assert [d.code for d in caught.value.diagnostics] == ["chat-template"]
    assert message in str(caught.value)


def test_where_the_template_comes_from(tmp_path: Path) -> None:
    named = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]
    assert loaded(tmp_path / "1", config={"chat_template": "c"}).template == "c"
    assert loaded(tmp_path / "2", config={"chat_template": named}).template == "d"
    assert loaded(tmp_path / "3", config={"chat_template": "c"}, chat_template_jinja="j").template == "j"
    assert loaded(tmp_path / "4").template is None


def test_tokenizer_files_that_are_missing_or_broken(tmp_path: Path) -> None:
    path = TinyLlama().write(tmp_path / "1", ["unified"])
    with pytest.raises(SpecError) as caught:
        Tokenizer.load(manifest.load(path))
    assert [d.code for d in caught.value.diagnostics] == ["no-tokenizer"]
    broken = {"tokenizer.json": "{}"}
    path = TinyLlama().write(tmp_path / "2", ["unified"], tokenizer=broken)
    with pytest.raises(WeightsError) as broke:
        Tokenizer.load(manifest.load(path))
    assert [d.code for d in broke.value.diagnostics] == ["broken-tokenizer"]
    texts = files(byte_level()) | {"tokenizer_config.json": "{"}
    read = manifest.load(TinyLlama().write(tmp_path / "3", ["unified"], tokenizer=texts))
    with pytest.raises(WeightsError, match="tokenizer_config"):
        Tokenizer.load(read)


GGUF = {
    "SmolLM2-135M-Instruct": "smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    "gemma-3-270m": "gemma3-270m/gemma-3-270m-Q4_K_M.gguf",
}


@pytest.mark.parametrize("model", GGUF)
def test_real_tokenizers_against_huggingface(tmp_path: Path, shared: Path, model: str) -> None:
    cache = Path(os.environ.get("FLOWC_CACHE") or Path.home() / ".cache" / "flowc")
    file = cache / "models" / GGUF[model]
    if not file.is_file():
        pytest.skip(f"{GGUF[model]} is not in the cache: run examples/fetch.py")
    write_tokenizer(GgufCheckpoint.open(file), tmp_path)
    texts = {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()}
    tokenizer = Tokenizer.load(manifest.load(TinyLlama().write(tmp_path / "out", ["unified"], tokenizer=texts)))
    for record in json.loads((shared / "oracles" / "real" / f"{model}.tok.json").read_text(encoding="utf-8")):
        assert tokenizer.encode(record["text"]) == record["ids"]
        assert tokenizer.decode(record["ids"]) == record["decoded"]
        assert "".join(streamed(tokenizer, record["ids"])) == record["decoded"]
    for record in json.loads((shared / "oracles" / "real" / f"{model}.json").read_text(encoding="utf-8"))["prompts"]:
        prompt = tokenizer.encode_prompt(record["prompt"], raw=record["kind"] != "chat")
        assert prompt == record["input_ids"]
        answer = record["greedy_ids"][: record["eos_at"]] if record["eos_at"] is not None else record["greedy_ids"]
        pieces = streamed(tokenizer, answer, prompt)
        assert "".join(pieces) == tokenizers_text(tokenizer.inner, record)


def tokenizers_text(inner: tokenizers.Tokenizer, record: dict[str, Any]) -> str:
    """The recorded text of an answer up to its end, without special tokens."""
    text: str = record["greedy_until_eos"] if record["eos_at"] is not None else record["greedy_text"]
    for token in inner.get_added_tokens_decoder().values():
        if token.special:
            text = text.replace(token.content, "")
    return text
