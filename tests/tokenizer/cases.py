"""Folders of tokenizer files that disagree, or that say things in unusual places: small, and made by hand.

`make_reference.py` asks transformers' AutoTokenizer about each of them; `reference.json` is what it said.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

Json = dict[str, Any]
Files = Mapping[str, Any]
"""Contents by name: a text, or what becomes JSON."""

TEXTS = (
    "Hello world", " leading space", "hello the user", "café Élan naïve", "你好 world",
    "a <|im_start|>user<|im_end|> b", "a</s>b <s>", "  two  spaces", "line\nbreak\n\n", "<image> x <tool> y",
    "0123 it's", "[MASK] Hello [NEW] there", "", "▁under", "x<mask>y <mask> z",
)  # fmt: skip
MESSAGES = [{"role": "user", "content": "hello the user"}]

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NAMED = (
    "{{ bos_token }}[{{ eos_token }}|{{ image_token }}|{{ boi_token is defined }}|{{ pad_token is defined }}]"
    "{{ messages[0].content }}"
)


def _bytes() -> list[str]:
    """GPT-2's visible characters of all bytes, in the order of the bytes."""
    kept = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(b) if b in kept else chr(next(others)) for b in range(256)]


def _token(number: int, text: str, **flags: bool) -> Json:
    usual = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": number, "content": text, **usual, **flags}


def _json(model: Json, added: list[Json], **parts: Any) -> Json:
    usual = {"normalizer": None, "pre_tokenizer": None, "post_processor": None, "decoder": None}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        **usual,
        **parts,
        "model": model,
    }


BYTES: Json = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}


def byte_level(specials: tuple[str, ...] = ("<s>", "</s>"), **parts: Any) -> Json:
    """Byte-level BPE with a few merges."""
    merges = ["h e", "l l", "he ll", "hell o", "Ġ t", "Ġt he", "u s", "us er", "e r", "Ġ w", "o r", "Ġw or"]
    vocab = {text: i for i, text in enumerate([*specials, *_bytes(), *(m.replace(" ", "") for m in merges)])}
    model: Json = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False, "vocab": vocab,
        "merges": merges,
    }  # fmt: skip
    added = [_token(vocab[s], s) for s in specials]
    return _json(model, added, **{"pre_tokenizer": BYTES, "decoder": {**BYTES, "add_prefix_space": True}, **parts})


def pieces(**parts: Any) -> Json:
    """Llama's kind: visible spaces, unknown characters as bytes."""
    words = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), "▁", *"abcdehilnorstuwxHE",
             "▁h", "▁w", "he", "▁he", "ll", "▁hell", "▁hello"]  # fmt: skip
    merges = ["▁ h", "▁ w", "h e", "▁ he", "l l", "▁he ll", "▁hell o"]
    vocab = {text: i for i, text in enumerate(words)}
    model: Json = {
        "type": "BPE", "dropout": None, "unk_token": "<unk>", "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": True, "byte_fallback": True, "ignore_merges": False, "vocab": vocab,
        "merges": merges,
    }  # fmt: skip
    steps: list[Json] = [{"type": "Prepend", "prepend": "▁"},
                         {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]  # fmt: skip
    post: Json = {
        "type": "TemplateProcessing", "pair": [{"Sequence": {"id": "A", "type_id": 0}}],
        "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "special_tokens": {"<s>": {"id": "<s>", "ids": [1], "tokens": ["<s>"]}},
    }  # fmt: skip
    usual = {"normalizer": {"type": "Sequence", "normalizers": steps}, "post_processor": post}
    return _json(model, [_token(i, words[i]) for i in range(3)], **{**usual, **parts})


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyzHE",
         *(f"##{c}" for c in "aelorstdn"), "hello", "Hello", "world", "the", "user", "cafe", "café", "你", "好", "你好",
         "elan", "naive"]  # fmt: skip


def bert(lowercase: bool, specials: Mapping[str, str] | None = None, **parts: Any) -> Json:
    """WordPiece between [CLS] and [SEP]."""
    words = [(specials or {}).get(w, w) for w in WORDS]
    vocab = {text: i for i, text in enumerate(words)}
    model: Json = {"type": "WordPiece", "unk_token": words[1], "continuing_subword_prefix": "##",
                   "max_input_chars_per_word": 100, "vocab": vocab}  # fmt: skip
    normalizer: Json = {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                        "strip_accents": None, "lowercase": lowercase}  # fmt: skip
    post = {"type": "BertProcessing", "sep": [words[3], 3], "cls": [words[2], 2]}
    usual = {"normalizer": normalizer, "pre_tokenizer": {"type": "BertPreTokenizer"}, "post_processor": post,
             "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True}}  # fmt: skip
    return _json(model, [_token(i, words[i]) for i in range(5)], **{**usual, **parts})


def unigram(first: list[str], unknown: int, **parts: Any) -> Json:
    """SentencePiece's unigram kind."""
    words = [*first, *("▁" + w for w in ("hello", "the", "user", "world", "H")), "▁", *"abcdehilnorstuw"]
    model = {"type": "Unigram", "unk_id": unknown, "byte_fallback": False,
             "vocab": [[w, -float(i) / 8] for i, w in enumerate(words)]}  # fmt: skip
    usual = {"pre_tokenizer": {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}}
    return _json(model, [_token(i, w) for i, w in enumerate(first)], **{**usual, **parts})


def _folder(model_type: str, content: Json | None, config: Json | None = None, **others: Any) -> Files:
    files: Json = {"config.json": {"model_type": model_type}}
    if content is not None:
        files["tokenizer.json"] = content
    if config is not None:
        files["tokenizer_config.json"] = config
    return files | {name.replace("__", "."): value for name, value in others.items()}


MERGES = "#version: 0.2\nh e\nl l\nhe ll\nhell o\n"
ROBERTA = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 4}


def _gpt2_vocab(first: Mapping[str, int]) -> Json:
    rest = [*_bytes(), "he", "ll", "hell", "hello"]
    return {**first, **{text: len(first) + i for i, text in enumerate(rest)}}


def _bert_cases() -> Iterator[tuple[str, Files]]:
    cls = {"tokenizer_class": "BertTokenizer"}
    for wanted in (True, False, None):
        for lower in (True, False):
            option = {} if wanted is None else {"do_lower_case": wanted}
            yield f"bert lower {lower}, config {wanted}", _folder("bert", bert(lower), {**cls, **option})
    yield "bert accents kept", _folder("bert", bert(True), {**cls, "strip_accents": False})
    yield "bert accents stripped", _folder("bert", bert(False), {**cls, "do_lower_case": False, "strip_accents": True})
    yield "bert chinese whole", _folder("bert", bert(True), {**cls, "tokenize_chinese_chars": False})
    fast = {"tokenizer_class": "PreTrainedTokenizerFast", "do_lower_case": True}
    yield "bert as it is", _folder("bert", bert(False), fast)
    yield "bert Fast", _folder("distilbert", bert(False), {"tokenizer_class": "DistilBertTokenizerFast"})
    yield "bert another name", _folder("bert", bert(False), {"tokenizer_class": "ElectraTokenizer"})
    yield "bert a name of nothing", _folder("nomic_bert", bert(False), {"tokenizer_class": "NomicBertTokenizer"})
    yield "bert without config", _folder("bert", bert(False))
    yield "nomic", _folder("nomic_bert", bert(False), {"tokenizer_class": "BertTokenizer", "do_lower_case": True})
    yield "modernbert", _folder("modernbert", bert(False), fast)
    yield "bert vocab.txt", _folder("bert", None, {**cls, "do_lower_case": False}, vocab__txt="\n".join(WORDS) + "\n")
    yield "bert vocab.txt alone", _folder("bert", None, None, vocab__txt="\n".join(WORDS))
    new = _token(0, "[NEW]", normalized=True, special=False)
    new.pop("id")
    yield "bert new token", _folder("bert", bert(True), {**cls, "added_tokens_decoder": {"60": new}})
    names = {"[CLS]": "<s>", "[SEP]": "</s>", "[PAD]": "<pad>", "[MASK]": "<mask>"}
    mpnet = {"tokenizer_class": "MPNetTokenizer", "do_lower_case": True}
    yield "mpnet", _folder("mpnet", bert(False, names), mpnet)
    yield "mpnet cased", _folder("mpnet", bert(True, names), {**mpnet, "do_lower_case": False})


def _byte_cases() -> Iterator[tuple[str, Files]]:
    first = tuple(ROBERTA)
    for space in (True, False):
        options = {"tokenizer_class": "RobertaTokenizer", "add_prefix_space": space}
        yield f"roberta prefix {space}", _folder("roberta", byte_level(first), options)
    yield (
        "roberta vocab and merges",
        _folder(
            "roberta",
            None,
            {"tokenizer_class": "RobertaTokenizer"},
            vocab__json=_gpt2_vocab(ROBERTA),
            merges__txt=MERGES,
        ),
    )
    qwen, ends = {"tokenizer_class": "Qwen2Tokenizer", "eos_token": "<|im_end|>"}, ("<|endoftext|>", "<|im_end|>")
    yield "qwen2", _folder("qwen2", byte_level(ends), qwen)
    yield (
        "qwen2 another class",
        _folder("qwen2", byte_level(ends), {**qwen, "tokenizer_class": "PreTrainedTokenizerFast"}),
    )
    yield (
        "qwen3 another class",
        _folder("qwen3", byte_level(ends), {**qwen, "tokenizer_class": "PreTrainedTokenizerFast"}),
    )
    listed = {str(i): {k: v for k, v in _token(i, t).items() if k != "id"} for i, t in ((0, ends[0]), (1, ends[1]))}
    listed["270"] = {"content": "<tool>", "special": False, "normalized": False}
    extra = {"additional_special_tokens": ["<|im_start|>"], "added_tokens_decoder": listed}
    yield "qwen2 added tokens", _folder("qwen2", byte_level(ends), {**qwen, **extra, "chat_template": CHATML})
    vocab = _gpt2_vocab({ends[0]: 0})
    yield "qwen2 vocab and merges", _folder("qwen2", None, {**qwen, **extra}, vocab__json=vocab, merges__txt=MERGES)
    added = {"<|im_start|>": 270, "<|im_end|>": 271}
    named = {"eos_token": "<|im_end|>", "chat_template": CHATML}
    yield "added_tokens.json", _folder("llama", byte_level(), named, added_tokens__json=added)
    yield "special_tokens_map.json", _folder(
        "llama", byte_level(), {"chat_template": "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}"},
        special_tokens_map__json={"bos_token": "<s>", "eos_token": {"content": "</s>", "lstrip": True, "rstrip": False,
                                  "single_word": False, "normalized": True}, "additional_special_tokens": ["<tool>"]},
    )  # fmt: skip
    yield "special_tokens_map.json does not count", _folder(
        "llama", byte_level(), {"added_tokens_decoder": listed, "bos_token": "<s>"},
        special_tokens_map__json={"bos_token": "</s>", "eos_token": "<tool>"},
    )  # fmt: skip
    yield "Llama of bytes", _folder("llama", byte_level(), {"tokenizer_class": "LlamaTokenizer"})
    own = {"bos_token": "<s>", "eos_token": "</s>", "image_token": "<image>", "chat_template": NAMED}
    yield "own names", _folder("llama", byte_level(), {**own, "tokenizer_class": "PreTrainedTokenizerFast"})
    yield "extra by name", _folder("smollm3", byte_level(), {**own, "extra_special_tokens": {"boi_token": "<tool>"}})
    yield "extra as a list", _folder("smollm3", byte_level(), {**own, "extra_special_tokens": ["<tool>"]})


def _piece_cases() -> Iterator[tuple[str, Files]]:
    llama = {"tokenizer_class": "LlamaTokenizer"}
    for space in (True, False, None):
        option = {} if space is None else {"add_prefix_space": space}
        yield f"llama prefix {space}", _folder("llama", pieces(), {**llama, **option})
    yield "llama legacy", _folder("llama", pieces(), {**llama, "legacy": True})
    yield "llama as it is", _folder("llama", pieces(), {"tokenizer_class": "PreTrainedTokenizerFast"})
    yield "phi3", _folder("phi3", pieces(), llama)
    yield "mistral", _folder("mistral", pieces(), llama)
    gemma = {"tokenizer_class": "GemmaTokenizer", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<unk>"}
    yield "gemma", _folder("gemma", pieces(), gemma)
    yield "gemma2 Fast", _folder("gemma2", pieces(), {**gemma, "tokenizer_class": "GemmaTokenizerFast"})
    first = ["<s>", "<pad>", "</s>", "<unk>"]
    for space in (True, False):
        options = {"tokenizer_class": "XLMRobertaTokenizer", "add_prefix_space": space}
        yield f"xlm-roberta prefix {space}", _folder("xlm-roberta", unigram(first, 3), options)
    own = ["<s>NOTUSED", "<pad>", "</s>NOTUSED", "<unk>", "<unk>NOTUSED", "<s>", "</s>"]
    yield "camembert", _folder("camembert", unigram(own, 3), {"tokenizer_class": "CamembertTokenizer"})


def _template_cases() -> Iterator[tuple[str, Files]]:
    one, other = "{{ messages[0].content }} one", "{{ messages[0].content }} other"
    default = "{{ messages[0].content }} default"

    def of(template: Any = None, **others: Any) -> Files:
        config = {"bos_token": "<s>", **({} if template is None else {"chat_template": template})}
        return _folder("llama", byte_level(), config, **others)

    named = [{"name": "one", "template": one}, {"name": "other", "template": other}]
    yield "template none", of()
    yield "template text", of(default)
    yield "template list", of([*named, {"name": "default", "template": default}])
    yield "template list without default", of(named)
    yield "template mapping", of({"one": one, "default": default})
    yield "template mapping without default", of({"one": one})
    yield "template file", of(one, chat_template__jinja=default)
    folder = {"additional_chat_templates/default.jinja": default, "additional_chat_templates/one.jinja": one}
    yield "template folder", {**of(), **folder}
    yield "template folder and field", {**of(other), "additional_chat_templates/default.jinja": default}
    yield "template folder without default", {**of(), "additional_chat_templates/one.jinja": one}
    yield "template folder and file", {**of(chat_template__jinja=default), "additional_chat_templates/one.jinja": one}


CASES: dict[str, Files] = dict([*_bert_cases(), *_byte_cases(), *_piece_cases(), *_template_cases()])


def write(files: Files, folder: Path) -> Path:
    """Write a case's files; gives the folder."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)
        path.write_text(text, encoding="utf-8")
    return folder
