"""A HuggingFace tokenizer from what a GGUF file embeds.

Two kinds are known. `gpt2`: byte-level BPE with merges; how text is cut before merging is named by
`tokenizer.ggml.pre`. `llama`: SentencePiece BPE, where the pair whose union has the best score merges first; its
merges are derived from the scores. The rest of llama.cpp's kinds, and unknown cuts, are refused: a tokenizer that
is nearly right gives wrong text without a word.

Sources: `llama-vocab.cpp` of llama.cpp for the names, defaults and cuts; the `tokenizer.json` of the models' own
repositories for the form.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from tokenizers import Tokenizer

from flowc.errors import FlowError, WeightsError
from flowc.outside.foreign import foreign
from flowc.weights.gguf.checkpoint import GgufCheckpoint
from flowc.weights.gguf.pretokenizers import PRE_TOKENIZERS, PreTokenizer

Json = dict[str, object]

_NORMAL, _UNKNOWN, _CONTROL, _USER_DEFINED = 1, 2, 3, 4  # tokenizer.ggml.token_type
_SPACE = "\u2581"  # SentencePiece's visible space
_MAX_TOKENS = 1 << 21
_MAX_PIECE = 256  # characters of a SentencePiece token, which allows 16 unless told otherwise


@dataclass(frozen=True, slots=True)
class _Vocabulary:
    """The embedded tokens by id, their types (see above), and the ids with a role."""

    tokens: list[str]
    types: list[int]
    roles: Mapping[str, int]  # bos, eos, unk, pad
    add_bos: bool
    add_eos: bool

    def ids(self) -> dict[str, int]:
        """Id of each token; the first one of equal tokens."""
        ids: dict[str, int] = {}
        for number, token in enumerate(self.tokens):
            ids.setdefault(token, number)
        return ids


def write_tokenizer(checkpoint: GgufCheckpoint, folder: Path) -> list[Path]:
    """Write `tokenizer.json` and `tokenizer_config.json` (with the chat template) into an existing folder.

    WeightsError `unsupported-tokenizer` or `broken-tokenizer`. What is written has been loaded by `tokenizers`.
    """
    written: list[Path] = []
    for name, content in tokenizer_of(checkpoint).items():
        (folder / name).write_bytes(content)
        written.append(folder / name)
    return written


def tokenizer_of(checkpoint: GgufCheckpoint) -> dict[str, bytes]:
    """What `write_tokenizer` writes, by name."""
    described = tokenizer_json(checkpoint.metadata)
    config = tokenizer_config(checkpoint.metadata)
    texts: dict[str, bytes] = {}
    for name, content in (("tokenizer.json", described), ("tokenizer_config.json", config)):
        text = json.dumps(content, ensure_ascii=False, indent=2 if content is config else None)
        if content is described:
            _check_loads(text)
        texts[name] = (text + "\n").encode()
    return texts


def tokenizer_json(metadata: Mapping[str, object]) -> Json:
    """The `tokenizer.json` of a GGUF's metadata. WeightsError as `write_tokenizer`."""
    kind = metadata.get("tokenizer.ggml.model")
    if kind == "gpt2":
        pre = _pre_tokenizer(metadata)
        vocabulary = _vocabulary(metadata, bos_by_default=pre.add_bos)
        parts = _byte_level(metadata, vocabulary, pre)
    elif kind == "llama":
        vocabulary = _vocabulary(metadata, bos_by_default=True)
        parts = _sentencepiece(metadata, vocabulary)
    else:
        raise _unsupported(f"the GGUF's tokenizer is of kind {kind!r}; flowc knows 'gpt2' and 'llama'")
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(vocabulary),
        **parts,
        "post_processor": _template(vocabulary, parts["post_processor"]),
    }


def tokenizer_config(metadata: Mapping[str, object]) -> Json:
    """The `tokenizer_config.json` of a GGUF's metadata: special tokens by role, and the chat template if any."""
    by_default = metadata.get("tokenizer.ggml.model") == "llama" or _pre_tokenizer(metadata).add_bos
    vocabulary = _vocabulary(metadata, bos_by_default=by_default)
    config: Json = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": vocabulary.add_bos,
        "add_eos_token": vocabulary.add_eos,
        "clean_up_tokenization_spaces": False,
    }
    for role in ("bos", "eos", "unk", "pad"):
        if role in vocabulary.roles:
            config[f"{role}_token"] = vocabulary.tokens[vocabulary.roles[role]]
    context = metadata.get(f"{metadata.get('general.architecture')}.context_length")
    if isinstance(context, int):
        config["model_max_length"] = context
    template = metadata.get("tokenizer.chat_template")
    if isinstance(template, str):
        config["chat_template"] = template
    return config


def _byte_level(metadata: Mapping[str, object], vocabulary: _Vocabulary, pre: PreTokenizer) -> Json:
    merges = [merge.split(" ") for merge in _texts(metadata, "tokenizer.ggml.merges")]
    if any(len(merge) != 2 for merge in merges):
        raise _broken("has a merge that is not two tokens")
    return {
        "normalizer": pre.normalizer,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": list(pre.steps)},
        "post_processor": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": _bpe(vocabulary, merges, ignore_merges=pre.ignore_merges),
    }


def _sentencepiece(metadata: Mapping[str, object], vocabulary: _Vocabulary) -> Json:
    prefix = metadata.get("tokenizer.ggml.add_space_prefix", True) is True
    visible: Json = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    steps: list[Json] = [{"type": "Prepend", "prepend": _SPACE}, visible] if prefix else [visible]
    decoders: list[Json] = [
        {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    if prefix:
        decoders.append({"type": "Strip", "content": " ", "start": 1, "stop": 0})
    scores = _per_token(metadata, "scores", float, len(vocabulary.tokens))
    merges = _merges_by_score(vocabulary, cast("list[float]", scores))
    return {
        "normalizer": {"type": "Sequence", "normalizers": steps},
        "pre_tokenizer": None,
        "post_processor": None,
        "decoder": {"type": "Sequence", "decoders": decoders},
        "model": _bpe(vocabulary, merges, byte_fallback=True),
    }


def _merges_by_score(vocabulary: _Vocabulary, scores: list[float]) -> list[list[str]]:
    """All ways to make a normal token of two others, those with the best score first."""
    ids = {token: i for i, token in enumerate(vocabulary.tokens) if vocabulary.types[i] == _NORMAL}
    found: list[tuple[float, int, int, int]] = []
    for token, number in ids.items():
        if len(token) > _MAX_PIECE:
            raise _broken(f"has a piece of {len(token)} characters")
        for cut in range(1, len(token)):
            left, right = ids.get(token[:cut]), ids.get(token[cut:])
            if left is not None and right is not None:
                found.append((-scores[number], number, left, right))
    found.sort()
    return [[vocabulary.tokens[left], vocabulary.tokens[right]] for _, _, left, right in found]


def _bpe(
    vocabulary: _Vocabulary, merges: list[list[str]], *, ignore_merges: bool = False, byte_fallback: bool = False
) -> Json:
    unknown = vocabulary.tokens[vocabulary.roles["unk"]] if byte_fallback and "unk" in vocabulary.roles else None
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": unknown,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": byte_fallback,
        "byte_fallback": byte_fallback,
        "ignore_merges": ignore_merges,
        "vocab": vocabulary.ids(),
        "merges": merges,
    }


def _added_tokens(vocabulary: _Vocabulary) -> list[Json]:
    """Tokens that are found in the text as they stand, before anything else is done with it."""
    ids = vocabulary.ids()
    return [
        {
            "id": number,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": kind != _USER_DEFINED,
        }
        for number, (token, kind) in enumerate(zip(vocabulary.tokens, vocabulary.types, strict=True))
        if kind in (_UNKNOWN, _CONTROL, _USER_DEFINED) and token and ids[token] == number
    ]


def _template(vocabulary: _Vocabulary, inner: object) -> object:
    """A post-processor that puts bos before and eos behind the text, where the GGUF asks for them."""
    roles = [r for r, add in (("bos", vocabulary.add_bos), ("eos", vocabulary.add_eos)) if add]
    if not roles:
        return inner
    tokens = {role: vocabulary.tokens[vocabulary.roles[role]] for role in roles}

    def pieces(sequence: str, type_id: int) -> list[Json]:
        special = {r: {"SpecialToken": {"id": token, "type_id": type_id}} for r, token in tokens.items()}
        body: Json = {"Sequence": {"id": sequence, "type_id": type_id}}
        return [cast(Json, p) for p in (special.get("bos"), body, special.get("eos")) if p is not None]

    special_tokens = {t: {"id": t, "ids": [vocabulary.roles[r]], "tokens": [t]} for r, t in tokens.items()}
    single = pieces("A", 0)
    template: Json = {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, *pieces("B", 1)],
        "special_tokens": special_tokens,
    }
    return template if inner is None else {"type": "Sequence", "processors": [inner, template]}


def _vocabulary(metadata: Mapping[str, object], *, bos_by_default: bool) -> _Vocabulary:
    tokens = _texts(metadata, "tokenizer.ggml.tokens")
    if len(tokens) > _MAX_TOKENS:
        raise _broken(f"has {len(tokens)} tokens, more than any model")
    types = [_NORMAL] * len(tokens)
    if "tokenizer.ggml.token_type" in metadata:
        types = cast("list[int]", _per_token(metadata, "token_type", int, len(tokens)))
    roles: dict[str, int] = {}
    for role, key in (("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("pad", "padding")):
        number = metadata.get(f"tokenizer.ggml.{key}_token_id")
        if number is None:
            continue
        if type(number) is not int or not 0 <= number < len(tokens):
            raise _broken(f"has no token {number}, its {key} token")
        roles[role] = number
    add_bos = metadata.get("tokenizer.ggml.add_bos_token", bos_by_default) is True and "bos" in roles
    add_eos = metadata.get("tokenizer.ggml.add_eos_token", False) is True and "eos" in roles
    return _Vocabulary(tokens, types, roles, add_bos, add_eos)


def _per_token(metadata: Mapping[str, object], name: str, kind: type, count: int) -> list[object]:
    value = metadata.get(f"tokenizer.ggml.{name}")
    items = cast("list[object]", value) if isinstance(value, list) else []
    if len(items) != count or not all(type(item) is kind for item in items):
        raise _broken(f"does not give every token a value in '{name}'")
    return items


def _texts(metadata: Mapping[str, object], key: str) -> list[str]:
    value = metadata.get(key)
    if not isinstance(value, list) or not all(isinstance(item, str) for item in cast("list[object]", value)):
        raise _broken(f"has no list of texts '{key}'")
    return cast("list[str]", value)


def _pre_tokenizer(metadata: Mapping[str, object]) -> PreTokenizer:
    name = metadata.get("tokenizer.ggml.pre", "default")
    pre = PRE_TOKENIZERS.get(name) if isinstance(name, str) else None
    if pre is None:
        raise _unsupported(f"the GGUF's tokenizer cuts text by the rule {name!r}, which flowc does not know")
    return pre


def _check_loads(text: str) -> None:
    with foreign(lambda why: _broken(f"cannot be loaded: {why}")):
        Tokenizer.from_str(text)


def _broken(fault: str) -> FlowError:
    return WeightsError.of("broken-tokenizer", f"the GGUF's embedded tokenizer {fault}")


def _unsupported(message: str) -> FlowError:
    return WeightsError.of("unsupported-tokenizer", message, hint="put the model's tokenizer.json beside the weights")
